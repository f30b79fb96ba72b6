/* config.c and config_check.c: defaults, every rule that several values share, and that all that is
 * wrong is told at once. The shipped conf/hookgate.yaml must be good. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "platform.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h> /* needs those above */

#define LISTEN "listen: {plain: '127.0.0.1:8080'}\n"
#define URL "public_url: https://hooks.example.com\n"
#define POSTGRES "postgres: {conninfo: host=db}\n"
#define KAFKA "kafka: {brokers: 'k:9092'}\n"
#define PLATFORMS "platforms: {directory: platforms}\n"
#define ALL LISTEN URL POSTGRES KAFKA PLATFORMS

static struct config *read_text(const char *text, struct problems *problems)
{
    return config_read_bytes("/etc/x/c.yaml", text, strlen(text), problems);
}

static void good(const char *text)
{
    struct problems problems = {0};
    struct config *config = read_text(text, &problems);
    if (config == NULL)
        fail_msg("%s: %s", text, problems.lines[0]);
    config_free(config);
}

/* Exactly one complaint, which holds `part`. */
static void bad(const char *text, const char *part)
{
    struct problems problems = {0};
    struct config *config = read_text(text, &problems);
    if (config != NULL)
        fail_msg("taken: %s", text);
    if (problems.count != 1 || strstr(problems.lines[0], part) == NULL)
        fail_msg("%s: %zu problems, the first: %s", text, problems.count, problems.lines[0]);
    problems_release(&problems);
}

static void defaults_stand(void **state)
{
    struct problems problems = {0};
    (void)state;

    struct config *config = read_text(ALL, &problems);
    assert_non_null(config);
    assert_string_equal(config->listen.admin.text, "127.0.0.1:9090");
    assert_null(config->listen.https.text);
    assert_int_equal(config->listen.connections, 10000);
    assert_int_equal(config->listen.memory, 1073741824);
    assert_int_equal(config->listen.body, 1048576);
    assert_int_equal(config->listen.request_us, 10000000);
    assert_int_equal(config->listen.backlog, 1024);
    assert_int_equal(config->threads, 0);
    assert_int_equal(config->deadlines.answer_us, 2500000);
    assert_int_equal(config->deadlines.gather_us, 300000);
    assert_int_equal(config->deadlines.claim_us, 400000);
    assert_int_equal(config->deadlines.publish_us, 1000000);
    assert_int_equal(config->deadlines.commit_us, 500000);
    assert_int_equal(config->deadlines.drain_delay_us, 5000000);
    assert_int_equal(config->deadlines.stop_us, 20000000);
    assert_int_equal(config->pipeline.batch, 256);
    assert_int_equal(config->pipeline.queue, 4096);
    assert_int_equal(config->pipeline.suspects, 64);
    assert_int_equal(config->postgres.lanes, 1);
    assert_int_equal(config->postgres.refresh_us, 5000000);
    assert_int_equal(config->postgres.dedup_window_us, 604800000000);
    assert_string_equal(config->kafka.topic, "webhooks.{platform}");
    assert_false(config->kafka.create_topics);
    assert_int_equal(config->kafka.partitions, 4);
    assert_int_equal(config->kafka.replication, 3);
    assert_false(config->kafka.allow_weak_durability);
    assert_int_equal(config->kafka.linger_us, 200);
    assert_int_equal(config->listen.proxies.count, 2);
    assert_int_equal(config->listen.proxies.items[0].bits, 104); /* 127.0.0.0/8 */
    assert_int_equal(config->listen.proxies.items[1].bits, 128);
    assert_int_equal(config->limits.failed_signatures, 300);
    static const struct {
        const char *plan;
        int64_t minute, hour;
    } plans[] = {{"default", 100, 1000}, {"free", 0, 100}, {"pro", 0, 10000}, {"enterprise", 0, 0}};
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        assert_int_equal(config_plan(config, plans[i].plan)->minute, plans[i].minute);
        assert_int_equal(config_plan(config, plans[i].plan)->hour, plans[i].hour);
    }
    assert_string_equal(config->directory, "/etc/x");
    assert_string_equal(config->platforms.directory, "/etc/x/platforms");
    config_free(config);
    config = read_text(LISTEN URL "postgres: {conninfo: host=db, key_file: /a}\n" KAFKA PLATFORMS,
                       &problems);
    assert_non_null(config);
    assert_string_equal(config->postgres.key_file, "/a");
    config_free(config);
}

static void the_shipped_file_is_good(void **state)
{
    char path[4096];
    struct problems problems = {0};
    const char *source = getenv("HOOKGATE_SOURCE");
    (void)state;

    assert_non_null(source);
    snprintf(path, sizeof path, "%s/conf/hookgate.yaml", source);
    struct config *config = config_read(path, &problems);
    problems_print(&problems);
    assert_non_null(config);
    assert_int_equal(config->platforms.enabled_count, 3);
    assert_int_equal(config->platforms.enabled[0].secret_file_count, 1);
    assert_int_equal(config->platforms.enabled[2].secret_file_count, 0);
    assert_int_equal(config->kafka.setting_count, 4);
    config_free(config);
}

static void all_is_told_at_once(void **state)
{
    struct problems problems = {0};
    (void)state;

    assert_null(read_text("listen: {https: nonsense, body: 1}\nthreads: many\n", &problems));
    /* body, four missing keys, threads, the address, certificate and key */
    assert_int_equal(problems.count, 9);
    assert_int_equal(problems.dropped, 0);
    problems_release(&problems);
}

static void listeners_are_checked(void **state)
{
#define REST URL POSTGRES KAFKA PLATFORMS
    (void)state;
    bad("listen: {}\n" REST, "no listener");
    bad("listen: {https: '0.0.0.0:443', key: k}\n" REST, "needs `certificate`");
    bad("listen: {https: '0.0.0.0:443', certificate: c}\n" REST, "needs `key`");
    good("listen: {https: '0.0.0.0:443', certificate: c, key: k}\n" REST);
    good("listen: {plain: '10.1.2.3:0'}\n" REST);
    good("listen: {plain: '172.31.0.1:80'}\n" REST);
    good("listen: {plain: '[::1]:80'}\n" REST);
    good("listen: {plain: '[fd00::1]:80'}\n" REST);
    bad("listen: {plain: '0.0.0.0:80'}\n" REST, "strict proxy");
    bad("listen: {plain: '[::]:80'}\n" REST, "strict proxy");
    bad("listen: {plain: '172.32.0.1:80'}\n" REST, "strict proxy");
    bad("listen: {plain: '[::ffff:8.8.8.8]:80'}\n" REST, "strict proxy");
    bad("listen: {plain: '127.0.0.1:80', admin: '0.0.0.0:9090'}\n" REST, "operators");
}

static void listeners_do_not_share_a_port(void **state)
{
    (void)state;
#define HTTPS(address, rest)                                                                       \
    "listen: {https: '" address "', certificate: c, key: k, " rest "}\n" REST
    bad("listen: {plain: '127.0.0.1:9090'}\n" REST,
        "c.yaml:1:17: listen.plain: 127.0.0.1:9090 takes the port of `admin`");
    bad(HTTPS("127.0.0.1:1", "plain: '127.0.0.1:1'"),
        "listen.plain: 127.0.0.1:1 takes the port of `https`");
    bad(HTTPS("0.0.0.0:1", "plain: '127.0.0.1:1'"), "listen.plain");
    bad(HTTPS("0.0.0.0:1", "admin: '127.0.0.1:1'"),
        "listen.https: 0.0.0.0:1 takes the port of `admin`");
    bad(HTTPS("[::]:1", "admin: '127.0.0.1:1'"), "listen.https");
    bad(HTTPS("[::]:1", "admin: '[::1]:1'"), "listen.https");
    good(HTTPS("0.0.0.0:1", "admin: '[::1]:1'"));
    good(HTTPS("10.0.0.1:1", "admin: '127.0.0.1:1', plain: '127.0.0.1:2'"));
    good(HTTPS("127.0.0.1:0", "admin: '127.0.0.1:0', plain: '127.0.0.1:0'"));
}

static void addresses_are_numeric(void **state)
{
    static const char *const wrong[] = {
        "",      ":80",   "localhost:80", "127.0.0.1",      "127.0.0.1:",       "127.0.0.1:65536",
        "1:2:3", "[::1]", "[::1]80",      "::1:80",         "127.0.0.1:+80",    "127.0.0.1: 80",
        "[:80",  "[]:80", "]:80",         "[127.0.0.1]:80", "127.0.0.1:000080", "127.1:80",
    };
    struct sockaddr_storage address;
    struct sockaddr_in v4;
    socklen_t len;
    (void)state;

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (config_address_parse(wrong[i], &address, &len))
            fail_msg("taken: '%s'", wrong[i]);
    }
    assert_true(config_address_parse("127.0.0.1:65535", &address, &len));
    assert_int_equal(len, sizeof v4);
    memcpy(&v4, &address, sizeof v4);
    assert_int_equal(ntohs(v4.sin_port), 65535);
    assert_int_equal(ntohl(v4.sin_addr.s_addr), 0x7f000001);
    assert_true(config_address_parse("[::1]:0", &address, &len));
    assert_int_equal(address.ss_family, AF_INET6);
}

static void deadlines_fit(void **state)
{
    (void)state;
    good(ALL "deadlines: {gather: 600ms}\n"); /* 2500ms exactly */
    bad(ALL "deadlines: {gather: 600001us}\n", "take 2501ms together");
    bad(ALL "deadlines: {answer: 2501ms}\n", "out of range");
    bad(ALL "deadlines: {answer: 2s}\n", "take 2200ms together");
}

static void passwords_stay_out(void **state)
{
    static const char *const wrong[] = {"host=db password=hunter2", "password = hunter2",
                                        "postgresql://u:hunter2@db/x",
                                        "postgres://db/x?password=hunter2", "sslpassword=hunter2"};
    char text[512];
    (void)state;

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct problems problems = {0};
        snprintf(text, sizeof text, LISTEN URL KAFKA PLATFORMS "postgres: {conninfo: '%s'}\n",
                 wrong[i]);
        assert_null(read_text(text, &problems));
        assert_int_equal(problems.count, 1);
        assert_non_null(strstr(problems.lines[0], "holds a password"));
        assert_null(strstr(problems.lines[0], "hunter2"));
        problems_release(&problems);
    }
    good(LISTEN URL KAFKA PLATFORMS
         "postgres: {conninfo: 'postgresql://u@db:5432/x?passfile=f'}\n");
    bad(LISTEN URL KAFKA PLATFORMS "postgres: {conninfo: 'hots=h'}\n",
        "postgres.conninfo: not valid; pairs of libpq's keywords");
    bad(LISTEN URL KAFKA PLATFORMS "postgres: {conninfo: 'postgresql://[::1'}\n",
        "libpq's keywords");
    bad(LISTEN URL KAFKA PLATFORMS "postgres: {conninfo: a, dedup_window: 89m}\n", "out of range");
}

static void promises_cannot_be_set_away(void **state)
{
    static const char *const wrong[] = {"acks",
                                        "request.required.acks",
                                        "enable.idempotence",
                                        "message.timeout.ms",
                                        "request.timeout.ms",
                                        "delivery.timeout.ms",
                                        "linger.ms",
                                        "queue.buffering.max.ms",
                                        "queue.buffering.max.kbytes",
                                        "bootstrap.servers",
                                        "metadata.broker.list",
                                        "transactional.id",
                                        "compression.type",
                                        "message.max.bytes",
                                        "partitioner",
                                        "sasl.password",
                                        "test.mock.num.brokers"};
    char text[512];
    (void)state;

#define KAFKA_WITH LISTEN URL POSTGRES PLATFORMS "kafka: {brokers: 'k:1', "
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(text, sizeof text, KAFKA_WITH "settings: {%s: 1}}\n", wrong[i]);
        bad(text, "can't be set here");
    }
    good(KAFKA_WITH "settings: {compression.codec: zstd, security.protocol: ssl}}\n");
    good(KAFKA_WITH "allow_weak_durability: true, settings: {test.mock.num.brokers: 3}}\n");
    bad(KAFKA_WITH "settings: [a]}\n", "a mapping");
    bad(KAFKA_WITH "settings: {client.id: [a]}}\n", "one value");
}

static void topics_brokers_and_urls_are_checked(void **state)
{
    (void)state;
    good(KAFKA_WITH "topic: all}\n");
    good(KAFKA_WITH "topic: 'a.{platform}.{platform}'}\n");
    bad(KAFKA_WITH "topic: 'a {platform}'}\n", "is no topic");
    bad(KAFKA_WITH "topic: '{plattform}'}\n", "is no topic");
    bad(KAFKA_WITH "topic: '..'}\n", "is no topic");
    bad(LISTEN URL POSTGRES PLATFORMS "kafka: {brokers: 'a:1,,b:2'}\n", "brokers");
    bad(LISTEN URL POSTGRES PLATFORMS "kafka: {brokers: 'a:1, b:2'}\n", "brokers");
    static const char *const wrong[] = {
        "b:x", "b:0", "b:65536", "b:", "b:1,c:99999", "[::1]:x", "SSL://b:x"};
    char text[512];
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(text, sizeof text, LISTEN URL POSTGRES PLATFORMS "kafka: {brokers: '%s'}\n",
                 wrong[i]);
        bad(text, "kafka.brokers: not valid");
    }
    good(LISTEN URL POSTGRES PLATFORMS
         "kafka: {brokers: 'b,c:1,[::1],[::1]:65535,SSL://d:9093'}\n");
    bad(LISTEN POSTGRES KAFKA PLATFORMS "public_url: https://h:99999\n", "public_url");
    bad(LISTEN POSTGRES KAFKA PLATFORMS "public_url: https://h:x/y\n", "public_url");
    good(LISTEN POSTGRES KAFKA PLATFORMS "public_url: 'https://[::1]:65535/a:b'\n");
    bad(LISTEN POSTGRES KAFKA PLATFORMS "public_url: https://x/\n", "trailing slash");
    bad(LISTEN POSTGRES KAFKA PLATFORMS "public_url: ftp://x\n", "public_url");
    bad(LISTEN POSTGRES KAFKA PLATFORMS "public_url: https://\n", "public_url");
    bad(LISTEN POSTGRES KAFKA PLATFORMS "public_url: 'https://u@x'\n", "public_url");
    good(LISTEN POSTGRES KAFKA PLATFORMS "public_url: http://127.0.0.1:80/in\n");
}

static void memory_fits_the_bodies(void **state)
{
    (void)state;
#define REST URL POSTGRES KAFKA PLATFORMS
    good("listen: {plain: '127.0.0.1:1', memory: 32MiB, body: 1MiB}\n" REST);
    bad("listen: {plain: '127.0.0.1:1', memory: 33MiB, body: 2MiB}\n" REST, "32 times `body`");
    bad("listen: {plain: '127.0.0.1:1', memory: 31MiB}\n" REST, "memory");
    /* Each loop has a share of it, which a body must not exceed. */
    bad("listen: {plain: '127.0.0.1:1', memory: 255MiB}\nthreads: 64\n" REST, "256 times `body`");
    good("listen: {plain: '127.0.0.1:1', memory: 256MiB}\nthreads: 64\n" REST);
    struct problems problems = {0};
    struct config *config =
        read_text("listen: {plain: '127.0.0.1:1', memory: 32MiB, body: 1MiB}\nthreads: auto\n" REST,
                  &problems);
    assert_in_range(config_threads(config), 1, 8);
    config->listen.memory = 4 * config->listen.body;
    assert_int_equal(config_threads(config), 1);
    config->threads = 3;
    assert_int_equal(config_threads(config), 3);
    config_free(config);
}

static void threads_and_platforms_are_read(void **state)
{
    (void)state;
    good(ALL "threads: auto\n");
    good(ALL "threads: 64\n");
    bad(ALL "threads: 0\n", "threads");
    bad(ALL "threads: 65\n", "threads");
    bad(ALL "threads: '4'\n", "threads");
    bad(ALL "threads: 99999999999999999999\n", "threads");
    bad(ALL "threads: []\n", "threads");
#define ENABLED LISTEN URL POSTGRES KAFKA "platforms: {directory: p, enabled: "
    good(ENABLED "{zoom: {secret_files: [a, b], topic: t}, otter: }}\n");
    bad(ENABLED "{../zoom: {}}}\n", "not a platform's name");
    bad(ENABLED "{Zoom: {}}}\n", "not a platform's name");
    bad(ENABLED "{zoom: {secrets: a}}}\n", "unknown key 'secrets'");
    bad(ENABLED "{zoom: {secret_files: [a,b,c,d,e,f,g,h,i]}}}\n", "at most 8");
    bad(ENABLED "{zoom: {topic: 'a b'}}}\n", "is no topic");
    bad(ENABLED "[zoom]}\n", "a mapping");
}

#define SECRETS(files) ENABLED "{zoom: {secret_files: " files "}}}\n"

static void secret_files_may_end(void **state)
{
    struct problems problems = {0};
    (void)state;

    struct config *config =
        read_text(SECRETS("[a, /b, {file: c, not_after: 2026-12-01T00:00:00Z}]"), &problems);
    assert_non_null(config);
    const struct config_platform *zoom = &config->platforms.enabled[0];
    assert_int_equal(zoom->secret_file_count, 3);
    assert_string_equal(zoom->secret_files[0].file, "/etc/x/a");
    assert_int_equal(zoom->secret_files[0].not_after_wall_us, 0);
    assert_string_equal(zoom->secret_files[1].file, "/b");
    assert_string_equal(zoom->secret_files[2].file, "/etc/x/c");
    assert_int_equal(zoom->secret_files[2].not_after_wall_us, INT64_C(1796083200000000));
    config_free(config);
    good(SECRETS("a"));
    good(SECRETS("{file: a}"));
    good(SECRETS("[]"));
    bad(SECRETS("[{not_after: 2026-12-01T00:00:00Z}]"), "file");
    bad(SECRETS("[{file: a, not_after: tomorrow}]"), "RFC 3339");
    bad(SECRETS("[{file: a, not_after: 2026-13-01T00:00:00Z}]"), "RFC 3339");
    bad(SECRETS("[{file: a, not_befor: x}]"), "not_befor");
    bad(SECRETS("['']"), "name of a file");
}

static void credentials_come_first(void **state)
{
    char directory[] = "/tmp/test_config.XXXXXX", path[64];
    struct problems problems = {0};
    (void)state;

    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/a", directory);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    setenv("CREDENTIALS_DIRECTORY", directory, 1);
    struct config *config = read_text(SECRETS("[a, b]"), &problems);
    unsetenv("CREDENTIALS_DIRECTORY");
    unlink(path);
    rmdir(directory);
    assert_non_null(config);
    assert_string_equal(config->platforms.enabled[0].secret_files[0].file, path);
    assert_string_equal(config->platforms.enabled[0].secret_files[1].file, "/etc/x/b");
    config_free(config);
}

/* What was told, as one text. */
static char *joined(const struct problems *problems, char *text, size_t size)
{
    text[0] = '\0';
    for (size_t i = 0; i < problems->count; i++) {
        size_t len = strlen(text);
        snprintf(text + len, size - len, "%s\n", problems->lines[i]);
    }
    return text;
}

static void a_reload_takes_some_keys_and_tells_the_others(void **state)
{
    struct problems problems = {0};
    struct config_changes changes = {0};
    char text[4096];
    (void)state;

    struct config *present = read_text(ALL "threads: 2\n", &problems);
    struct config *next = read_text("listen: {plain: '127.0.0.1:9999', headers: 64KiB}\n"
                                    "public_url: https://other.example\n" POSTGRES
                                    "kafka: {brokers: 'k:9092', settings: {retries: 5}, topic: t}\n"
                                    "platforms: {directory: /other}\n"
                                    "deadlines: {claim: 300ms, stop: 9s}\n",
                                    &problems);
    assert_non_null(present);
    assert_non_null(next);
    config_compare(next, present, present, &changes);
    assert_string_equal(joined(&changes.taken, text, sizeof text),
                        "/etc/x/c.yaml:1:44: listen.headers: changed\n"
                        "/etc/x/c.yaml:2:13: public_url: changed\n"
                        "/etc/x/c.yaml:6:33: deadlines.stop: changed\n"
                        "/etc/x/c.yaml:4:59: kafka.topic: changed\n"
                        "/etc/x/c.yaml:5:24: platforms.directory: changed\n");
    assert_string_equal(
        joined(&changes.restart, text, sizeof text),
        "/etc/x/c.yaml:1:17: listen.plain: changed, but needs a restart; the old value stays\n"
        "/etc/x/c.yaml:1:1: threads is not set any more: changed, but needs a restart; the old "
        "value stays\n"
        "/etc/x/c.yaml:6:20: deadlines.claim: changed, but needs a restart; the old value "
        "stays\n"
        "/etc/x/c.yaml:4:38: kafka.settings: changed, but needs a restart; the old value "
        "stays\n");
    config_changes_release(&changes);
    /* It says what is in effect. */
    assert_string_equal(next->listen.plain.text, "127.0.0.1:8080");
    assert_int_equal(next->threads, 2);
    assert_int_equal(next->deadlines.claim_us, 400000);
    assert_int_equal(next->kafka.setting_count, 0);
    assert_int_equal(next->deadlines.stop_us, 9000000);
    assert_string_equal(next->public_url, "https://other.example");
    changes = (struct config_changes){0};
    struct config *same = read_text(ALL "threads: 2\n", &problems);
    config_compare(same, present, present, &changes);
    assert_int_equal(changes.taken.count + changes.restart.count, 0);
    config_free(same);
    config_free(next);
    config_free(present);
}

/* The configurations between go while what was kept is in use. */
static void what_is_kept_is_that_of_the_start(void **state)
{
    struct problems problems = {0};
    struct config_changes changes = {0};
    (void)state;

    struct config *start = read_text(ALL "threads: 2\n", &problems);
    struct config *second = read_text(ALL "threads: 2\n", &problems);
    struct config *third = read_text("listen: {plain: '127.0.0.1:9999'}\n"
                                     "public_url: https://hooks.example.com\n" POSTGRES
                                     "kafka: {brokers: 'other:9092', settings: {retries: 5}}\n"
                                     "platforms: {directory: /x}\n",
                                     &problems);
    assert_non_null(third);
    config_compare(second, start, start, &changes);
    config_compare(third, second, start, &changes);
    config_changes_release(&changes);
    config_free(second);
    assert_ptr_equal(third->kafka.brokers, start->kafka.brokers);
    assert_ptr_equal(third->listen.plain.text, start->listen.plain.text);
    assert_ptr_equal(third->threads_node, start->threads_node);
    assert_int_equal(third->threads, 2);
    config_free(third);
    config_free(start);
}

/* The configuration with the repository's platforms and these `enabled`. */
static struct config *with_platforms(const char *enabled, const char *rest)
{
    char text[4096];
    struct problems problems = {0};
    snprintf(text, sizeof text,
             LISTEN URL POSTGRES KAFKA "%splatforms: {directory: '%s/platforms', enabled: {%s}}\n",
             rest, getenv("HOOKGATE_SOURCE"), enabled);
    struct config *config = read_text(text, &problems);
    assert_non_null(config);
    return config;
}

/* The platforms of a good configuration give exactly one complaint, which holds `part`. Takes it.
 */
static void refused(struct config *config, const char *part)
{
    struct problems problems = {0};
    struct platforms *platforms = config_load_platforms(config, &problems);
    if (platforms != NULL || problems.count != 1 || strstr(problems.lines[0], part) == NULL)
        fail_msg("%s: %zu problems, the first: %s", part, problems.count, problems.lines[0]);
    problems_release(&problems);
    config_free(config);
}

static void held(const char *enabled, const char *rest, const char *part)
{
    refused(with_platforms(enabled, rest), part);
}

static void no_platform_publishes_where_events_are_held(void **state)
{
    (void)state;
    held("zoom: {topic: webhooks.hold}", "", "zoom.topic: webhooks.hold would be both");
    held("zoom: {topic: webhooks.hold.markers}", "", "zoom.topic: webhooks.hold.markers would");
    held("zoom: ", "hold: {topic: webhooks.zoom}\n",
         "/etc/x/c.yaml:5:15: hold.topic: webhooks.zoom");
    held("otter: ", "hold: {markers: webhooks.otter}\n",
         "c.yaml:5:17: hold.markers: webhooks.otter");
}

static void what_the_configuration_names_is_told_where_it_does(void **state)
{
    struct problems problems = {0};
    char directory[] = "/tmp/test_config.XXXXXX", text[512];
    (void)state;

    refused(with_platforms("zoom: {secret_files: [nothere]}", ""),
            "zoom.secret_files[0]: /etc/x/nothere: can't be opened");
    refused(with_platforms("zoom: {secret_files: {file: /nothere}}", ""),
            "zoom.secret_files.file: /nothere: can't be opened");
    refused(with_platforms("zoom: {secret_files: /dev/null}", ""), "/etc/x/c.yaml:5:");
    refused(
        read_text(LISTEN URL POSTGRES KAFKA "platforms: {directory: /nope}\n", &problems),
        "/etc/x/c.yaml:5:24: platforms.directory: /nope: the folder of platforms can't be read");
    assert_non_null(mkdtemp(directory));
    snprintf(text, sizeof text, LISTEN URL POSTGRES KAFKA "platforms: {directory: %s}\n",
             directory);
    refused(read_text(text, &problems), "c.yaml:5:24: platforms.directory: /tmp/test_config.");
    rmdir(directory);
    bad(ALL "hold: {topic: x, markers: x}\n",
        "/etc/x/c.yaml:6:27: hold.markers: x is `hold.topic` too");
    bad(ALL "hold: {topic: webhooks.hold.markers}\n", "/etc/x/c.yaml:6:7: hold: ");
}

/* What a file says of `hold` needs a restart: what counts is what was there before. */
static void a_reload_cannot_bring_a_platform_where_events_are_held(void **state)
{
    struct problems problems = {0};
    struct config_changes changes = {0};
    (void)state;

    struct config *present = with_platforms("zoom: ", "");
    struct config *next = with_platforms("zoom: {topic: webhooks.hold}", "hold: {topic: other}\n");
    struct platforms *platforms = config_load_platforms(next, &problems);
    assert_non_null(platforms);
    config_compare(next, present, present, &changes);
    config_check_held(next, platforms, &problems);
    assert_int_equal(problems.count, 1);
    assert_non_null(strstr(problems.lines[0], "zoom.topic: webhooks.hold would be both"));
    config_changes_release(&changes);
    problems_release(&problems);
    platforms_free(platforms);
    config_free(next);
    config_free(present);
}

int main(void)
{
    unsetenv("CREDENTIALS_DIRECTORY");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_stand),
        cmocka_unit_test(the_shipped_file_is_good),
        cmocka_unit_test(all_is_told_at_once),
        cmocka_unit_test(listeners_are_checked),
        cmocka_unit_test(listeners_do_not_share_a_port),
        cmocka_unit_test(addresses_are_numeric),
        cmocka_unit_test(deadlines_fit),
        cmocka_unit_test(passwords_stay_out),
        cmocka_unit_test(promises_cannot_be_set_away),
        cmocka_unit_test(topics_brokers_and_urls_are_checked),
        cmocka_unit_test(memory_fits_the_bodies),
        cmocka_unit_test(threads_and_platforms_are_read),
        cmocka_unit_test(secret_files_may_end),
        cmocka_unit_test(credentials_come_first),
        cmocka_unit_test(a_reload_takes_some_keys_and_tells_the_others),
        cmocka_unit_test(what_is_kept_is_that_of_the_start),
        cmocka_unit_test(no_platform_publishes_where_events_are_held),
        cmocka_unit_test(what_the_configuration_names_is_told_where_it_does),
        cmocka_unit_test(a_reload_cannot_bring_a_platform_where_events_are_held),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
