/* `hookgate send`: posts fresh, signed events made from a platform's samples, one or millions. With
 * --rate the moments of sending are fixed beforehand and latency counts from them, so a slow
 * gateway can't hide behind a sender that waits for it. One thread, one loop. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"
#include "clock.h"
#include "command.h"
#include "destination.h"
#include "forge.h"
#include "json.h"
#include "options.h"
#include "send_options.h"
#include "send_report.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#define ANSWER_ROOM (1u << 20)

struct slot { /* one connection */
    struct sender *sender;
    struct client *client;
    struct slot *next_idle;
    int64_t due_us; /* from when latency counts */
    bool bad;
};

struct sender {
    const struct send_options *options;
    struct loop *loop;
    struct destination *to;
    struct forge *forge;
    struct json_reader *json;
    struct slot *slots, *idle;
    size_t in_flight;
    uint64_t total, started; /* UINT64_MAX = until the time is over */
    uint64_t random;
    int64_t begin_us, end_us; /* end: nothing new after it */
    int64_t failing_since_us; /* 0 = the newest request was answered */
    bool stopped, doubt_told;
    struct loop_timer next; /* when the next event is due */
    struct loop_task flush;
    int acked_fd;
    char acked[65536];
    size_t acked_len;
    char *answer; /* of the only request */
    size_t answer_len;
    struct send_report report;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

/* --- answers ------------------------------------------------------------------------------------
 */

static void flush_acked(struct sender *sender)
{
    size_t done = 0;
    while (done < sender->acked_len) {
        ssize_t n = write(sender->acked_fd, sender->acked + done, sender->acked_len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            fprintf(stderr, "hookgate send: %s: %s\n", sender->options->acked, strerror(errno));
            sender->stopped = true;
            sender->report.surprises++;
            break;
        }
        done += (size_t)n;
    }
    sender->acked_len = 0;
}

static void on_flush(struct loop_task *task)
{
    flush_acked(container_of(task, struct sender, flush));
}

static void acknowledge(struct sender *sender, struct slice id)
{
    if (sender->acked_fd < 0 || id.len == 0 || id.len + 1 > sizeof sender->acked)
        return;
    if (sender->acked_len + id.len + 1 > sizeof sender->acked)
        flush_acked(sender);
    memcpy(sender->acked + sender->acked_len, id.ptr, id.len);
    sender->acked[sender->acked_len + id.len] = '\n';
    sender->acked_len += id.len + 1;
    loop_defer(sender->loop, &sender->flush);
}

static void count_answer(struct sender *sender, const struct slot *slot,
                         const struct client_answer *answer)
{
    struct send_report *report = &sender->report;
    const struct json *json = NULL;
    struct slice status = {"", 0}, id = {"", 0};
    if (json_read(sender->json, answer->body, &json) == OUTCOME_NONE) {
        if (json_text_at(json, "/status", &status) != JSON_FOUND)
            status = (struct slice){"", 0};
        if (json_text_at(json, "/external_id", &id) != JSON_FOUND)
            id = (struct slice){"", 0};
    }
    report->answered++;
    report->status[answer->status < 1000 ? answer->status : 999]++;
    histogram_add(&report->latency, clock_mono_us() - slot->due_us);
    bool accepted = answer->status == 200 && slice_is(status, "accepted");
    bool duplicate = answer->status == 200 && slice_is(status, "duplicate");
    if (accepted)
        histogram_add(&report->accepted_latency, clock_mono_us() - slot->due_us);
    report->accepted += accepted;
    report->duplicate += duplicate;
    report->ignored += answer->status == 200 && slice_is(status, "ignored");
    if (accepted || duplicate)
        acknowledge(sender, id);
    bool fine = slot->bad ? answer->status == 401 : accepted || duplicate;
    report->surprises += !fine;
    if (sender->options->count == 1 && sender->options->seconds <= 0) {
        sender->answer = xmalloc(answer->body.len + 1);
        memcpy(sender->answer, answer->body.ptr, answer->body.len);
        sender->answer_len = answer->body.len;
    }
}

static void count_failure(struct sender *sender, struct client *client, enum client_result result)
{
    struct send_report *report = &sender->report;
    report->errors++;
    report->surprises++;
    report->unreachable += result == CLIENT_UNREACHABLE;
    report->broken += result == CLIENT_BROKEN;
    report->timeouts += result == CLIENT_TIMEOUT;
    report->garbled += result == CLIENT_GARBLED;
    snprintf(report->last_failure, sizeof report->last_failure, "%s", client_failure(client));

    /* Without an end in time, a gateway that stays away must not keep us for ever. */
    int64_t now = clock_mono_us();
    int64_t patience = (int64_t)(sender->options->timeout * 3e6);
    if (report->answered > 0 && patience < 30000000)
        patience = 30000000;
    if (sender->failing_since_us == 0)
        sender->failing_since_us = now;
    else if (now - sender->failing_since_us > patience)
        sender->stopped = true;
}

static void pump(struct sender *sender);

static void on_done(struct client *client, enum client_result result,
                    const struct client_answer *answer, void *context)
{
    struct slot *slot = context;
    struct sender *sender = slot->sender;
    const char *doubt = destination_doubt(sender->to);
    if (doubt != NULL && !sender->doubt_told) {
        sender->doubt_told = true;
        fprintf(stderr,
                "hookgate send: the certificate can't be verified (%s); accepted from a loopback "
                "address, --ca FILE would insist\n",
                doubt);
    }
    if (result == CLIENT_ANSWERED) {
        sender->failing_since_us = 0;
        count_answer(sender, slot, answer);
    } else {
        count_failure(sender, client, result);
    }
    sender->in_flight--;
    slot->next_idle = sender->idle;
    sender->idle = slot;
    pump(sender);
}

/* --- sending ------------------------------------------------------------------------------------
 */

static bool chance(struct sender *sender, double share)
{
    sender->random = sender->random * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (double)(sender->random >> 11) < share * 9007199254740992.0; /* 2^53 */
}

/* When event number `started` is to be sent, or 0 for at once. */
static int64_t due_us(const struct sender *sender)
{
    double rate = sender->options->rate;
    return rate > 0 ? sender->begin_us + (int64_t)((double)sender->started * 1e6 / rate) : 0;
}

static void send_one(struct sender *sender, int64_t due)
{
    struct slot *slot = sender->idle;
    sender->idle = slot->next_idle;
    slot->bad = chance(sender, sender->options->bad_rate);
    bool repeat = chance(sender, sender->options->duplicate_rate);
    struct forged forged;
    forge_make(sender->forge, clock_wall_us(),
               (slot->bad ? FORGE_BAD_SIGNATURE : 0u) | (repeat ? FORGE_REPEAT : 0u), &forged);
    int64_t now = clock_mono_us();
    slot->due_us = due > 0 ? due : now;
    sender->started++;
    sender->in_flight++;
    sender->report.sent++;
    client_send(slot->client, forged.head, forged.in->body,
                now + (int64_t)(sender->options->timeout * 1e6));
}

static void pump(struct sender *sender)
{
    while (sender->idle != NULL && sender->started < sender->total && !sender->stopped) {
        int64_t due = due_us(sender), now = clock_mono_us();
        if (sender->end_us > 0 && now >= sender->end_us)
            return;
        if (due > now) {
            loop_timer_set(sender->loop, &sender->next, due);
            return;
        }
        send_one(sender, due);
    }
}

static void on_next(struct loop_timer *timer)
{
    pump(container_of(timer, struct sender, next));
}

static bool is_over(const struct sender *sender)
{
    bool out_of_time = sender->end_us > 0 && clock_mono_us() >= sender->end_us;
    return sender->in_flight == 0 &&
           (sender->started == sender->total || out_of_time || sender->stopped);
}

static double cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void run(struct sender *sender)
{
    const struct send_options *options = sender->options;
    double cpu_begin = cpu_us();
    sender->begin_us = clock_mono_us();
    sender->total = options->count;
    if (options->seconds > 0) {
        sender->total =
            options->rate > 0 ? (uint64_t)ceil(options->rate * options->seconds) : UINT64_MAX;
        /* What was due by then may still be sent for a while, when the gateway lags behind. */
        double grace = options->rate > 0 ? options->timeout : 0;
        sender->end_us = sender->begin_us + (int64_t)((options->seconds + grace) * 1e6);
    }
    pump(sender);
    while (!is_over(sender)) {
        loop_turn(sender->loop, 100);
        if (interrupted)
            sender->stopped = true;
    }
    struct send_report *report = &sender->report;
    if (sender->acked_fd >= 0)
        flush_acked(sender);
    report->seconds = (double)(clock_mono_us() - sender->begin_us) / 1e6;
    report->cpu_us_per_event = report->sent > 0 ? (cpu_us() - cpu_begin) / (double)report->sent : 0;
    report->unsent = sender->total == UINT64_MAX ? 0 : sender->total - sender->started;
    for (uint64_t i = 0; i < options->concurrency; i++)
        report->reconnects += client_reconnects(sender->slots[i].client);
}

/* --- setting up ---------------------------------------------------------------------------------
 */

static bool connect_slots(struct sender *sender)
{
    const struct send_options *options = sender->options;
    sender->loop = loop_new();
    sender->json = json_reader_new(ANSWER_ROOM);
    sender->next.on_due = on_next;
    sender->flush.run = on_flush;
    sender->acked_fd = -1;
    sender->random = options->forge.seed;
    if (options->acked != NULL) {
        sender->acked_fd = open(options->acked, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (sender->acked_fd < 0) {
            fprintf(stderr, "hookgate send: %s: %s\n", options->acked, strerror(errno));
            return false;
        }
    }
    sender->slots = xcalloc(options->concurrency, sizeof *sender->slots);
    for (size_t i = options->concurrency; i-- > 0;) {
        struct slot *slot = &sender->slots[i];
        *slot = (struct slot){.sender = sender, .next_idle = sender->idle};
        slot->client = client_new(sender->loop, sender->to, on_done, slot);
        sender->idle = slot;
    }
    return true;
}

static void release(struct sender *sender)
{
    for (size_t i = 0; sender->slots != NULL && i < sender->options->concurrency; i++)
        client_free(sender->slots[i].client);
    if (sender->loop != NULL)
        loop_timer_clear(sender->loop, &sender->next);
    loop_cancel(&sender->flush);
    if (sender->acked_fd >= 0)
        close(sender->acked_fd);
    free(sender->slots);
    free(sender->answer);
    json_reader_free(sender->json);
    loop_free(sender->loop);
}

static int send_and_report(struct sender *sender)
{
    const struct send_options *options = sender->options;
    int status = 2;
    if (connect_slots(sender)) {
        run(sender);
        const struct send_report *report = &sender->report;
        struct slice answer = {sender->answer, sender->answer_len};
        if (options->json) {
            const struct json *json;
            if (answer.len > 0 && json_read(sender->json, answer, &json) != OUTCOME_NONE)
                answer.len = 0;
            send_report_print_json(report, answer, stdout);
        } else {
            if (answer.len > 0)
                printf("%.*s\n", (int)answer.len, answer.ptr);
            send_report_print(report, stdout);
        }
        bool fine = report->surprises == 0 && report->unsent == 0 && report->sent > 0;
        status = fine && fflush(stdout) == 0 ? 0 : 1;
    }
    release(sender);
    return status;
}

static const struct secret *read_secret(const struct send_options *options,
                                        const struct platform *platform, struct keyring *keyring,
                                        struct problems *problems)
{
    if (options->secret_file == NULL) {
        if (!platform->token_authenticates || options->bad_rate > 0)
            problem_add(problems, NULL, 0, 0, "hookgate send: %s needs --secret-file%s",
                        platform->name, options->bad_rate > 0 ? " for bad signatures" : "");
        return NULL;
    }
    return keyring_add_file(keyring, platform, &(struct keyring_file){.path = options->secret_file},
                            problems)
               ? keyring->secrets[0]
               : NULL;
}

static int send_from(struct sender *sender, const struct platform *platform,
                     struct forge_options *forge_options, struct problems *problems)
{
    struct keyring keyring = {.count = 0};
    const struct secret *secret = read_secret(sender->options, platform, &keyring, problems);
    int status = 2;
    if (!problems_any(problems)) {
        sender->forge = forge_new(platform, secret, forge_options, problems);
        problems_print(problems);
        if (sender->forge != NULL)
            status = send_and_report(sender);
        forge_free(sender->forge);
    } else {
        problems_print(problems);
    }
    keyring_release(&keyring);
    return status;
}

static int send_to(const struct send_options *options, struct platforms *platforms,
                   struct problems *problems)
{
    const struct platform *platform = platforms_find(platforms, slice_of(options->platform));
    char error[256];
    struct destination *to = destination_new(options->url, options->ca, error, sizeof error);
    if (to == NULL || platform == NULL) {
        fprintf(stderr, "hookgate send: %s\n", to == NULL ? error : "unknown platform");
        destination_free(to);
        return 2;
    }
    char path[128];
    snprintf(path, sizeof path, "/webhooks/%s", platform->name);
    struct forge_options forge_options = options->forge;
    forge_options.target = *destination_path(to) ? destination_path(to) : path;
    forge_options.authority = destination_authority(to);
    forge_options.origin = destination_origin(to);
    struct sender *sender = xcalloc(1, sizeof *sender);
    sender->options = options;
    sender->to = to;
    int status = send_from(sender, platform, &forge_options, problems);
    free(sender);
    destination_free(to);
    return status;
}

int command_send(int argc, char **argv)
{
    struct send_options options = {.timeout = 5};
    int status = send_options_parse(argc, argv, &options);
    if (status >= 0)
        return status;
    signal(SIGPIPE, SIG_IGN);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    const char *only[] = {options.platform, NULL};
    struct problems problems = {.count = 0};
    struct platforms *platforms = platforms_load(
        options.platforms ? options.platforms : options_platforms(), NULL, only, &problems);
    if (platforms == NULL) {
        problems_print(&problems);
        status = 2;
    } else {
        status = send_to(&options, platforms, &problems);
    }
    platforms_free(platforms);
    problems_release(&problems);
    return status;
}
