/* Configuration, second pass: what can't be said of one value alone: addresses and who may reach
 * them, deadlines that must fit into one another, settings that would break a promise. Called by
 * config_read() after binding; goes on after a problem, so that all are told at once. A value that
 * the first pass refused is not complained about again. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "conninfo.h"

#include <arpa/inet.h>
#include <netinet/in.h>

/* The node under section and key, or NULL. */
static const struct yaml_node *given(const struct config *config, const char *section,
                                     const char *key)
{
    const struct yaml_node *node = yaml_node_get(yaml_root(config->yaml), section);

    if (node == NULL || yaml_node_type(node) != YAML_MAPPING)
        return NULL;
    return yaml_node_get(node, key);
}

/* Where to point when a section lacks something: at the section, or at the file's beginning. */
static const struct yaml_node *section(const struct config *config, const char *name)
{
    const struct yaml_node *node = yaml_node_get(yaml_root(config->yaml), name);

    return node != NULL ? node : yaml_root(config->yaml);
}

const struct yaml_node *config_place(const struct config *config, const char *name, const char *key)
{
    const struct yaml_node *node = given(config, name, key);

    return node != NULL ? node : section(config, name);
}

static bool parse_port(struct slice text, in_port_t *ret_port)
{
    unsigned port = 0;

    if (text.len < 1 || text.len > 5)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        port = 10 * port + (unsigned)(text.ptr[i] - '0');
    }
    if (port > 65535)
        return false;
    *ret_port = htons((uint16_t)port);
    return true;
}

bool config_address_parse(const char *text, struct sockaddr_storage *ret_address,
                          socklen_t *ret_len)
{
    char host[INET6_ADDRSTRLEN + 1];
    const char *colon = strrchr(text, ':');
    bool is_v6 = text[0] == '[';
    in_port_t port;

    if (colon == NULL || colon == text || (is_v6 && colon[-1] != ']') ||
        !parse_port(slice_of(colon + 1), &port))
        return false;
    const char *first = text + is_v6;
    size_t len = (size_t)(colon - first) - is_v6;
    if (len >= sizeof host)
        return false;
    memcpy(host, first, len);
    host[len] = '\0';

    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = port};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = port};
    if (inet_pton(is_v6 ? AF_INET6 : AF_INET, host,
                  is_v6 ? (void *)&v6.sin6_addr : (void *)&v4.sin_addr) != 1)
        return false;
    *ret_address = (struct sockaddr_storage){0};
    *ret_len = is_v6 ? sizeof v6 : sizeof v4;
    memcpy(ret_address, is_v6 ? (const void *)&v6 : (const void *)&v4, *ret_len);
    return true;
}

/* RFC 1918 and loopback. */
static bool is_private_v4(uint32_t ip)
{
    return ip >> 24 == 127 || ip >> 24 == 10 || ip >> 20 == 0xac1 || ip >> 16 == 0xc0a8;
}

/* Loopback or private: reachable by a proxy on this host or in this network alone. */
static bool is_private(const struct sockaddr_storage *address)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;

    if (address->ss_family == AF_INET) {
        memcpy(&v4, address, sizeof v4);
        return is_private_v4(ntohl(v4.sin_addr.s_addr));
    }
    memcpy(&v6, address, sizeof v6);
    const uint8_t *bytes = v6.sin6_addr.s6_addr;
    if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr))
        return is_private_v4((uint32_t)bytes[12] << 24 | (uint32_t)bytes[13] << 16 |
                             (uint32_t)bytes[14] << 8 | bytes[15]);
    return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr) || (bytes[0] & 0xfe) == 0xfc;
}

/* `why_private` NULL = any address is fine. */
static void check_address(const struct config_address *address, const char *why_private,
                          struct problems *problems)
{
    struct sockaddr_storage parsed;
    socklen_t len;

    if (address->text == NULL || address->node == NULL)
        return; /* not listening, or a default */
    if (!config_address_parse(address->text, &parsed, &len))
        yaml_problem(
            address->node, problems,
            "'%s' is no address; a numeric one with a port would be right: 127.0.0.1:8443, "
            "0.0.0.0:443, [::1]:8443",
            address->text);
    else if (why_private != NULL && !is_private(&parsed))
        yaml_problem(address->node, problems,
                     "%s is reachable from outside; %s; a loopback or private address would be "
                     "right",
                     address->text, why_private);
}

static in_port_t port_of(const struct sockaddr_storage *address)
{
    struct sockaddr_in v4;
    _Static_assert(offsetof(struct sockaddr_in, sin_port) ==
                       offsetof(struct sockaddr_in6, sin6_port),
                   "at the same place in both");

    memcpy(&v4, address, sizeof v4);
    return v4.sin_port;
}

/* Takes the other's port too: 0.0.0.0 in its own family, [::] in both. */
static bool covers(const struct sockaddr_storage *address, const struct sockaddr_storage *other)
{
    static const char zeros[sizeof(struct sockaddr_storage)];
    struct sockaddr_storage host = *address;

    if (memcmp(address, other, sizeof *address) == 0)
        return true;
    if (address->ss_family == AF_INET && other->ss_family == AF_INET6)
        return false;
    host.ss_family = 0;
    memset((char *)&host + offsetof(struct sockaddr_in, sin_port), 0, sizeof(in_port_t));
    return memcmp(&host, zeros, sizeof host) == 0;
}

/* Of two listeners the second could not be opened. */
static void check_apart(const struct config_address *one, const char *name,
                        const struct config_address *other, struct problems *problems)
{
    struct sockaddr_storage a, b;
    socklen_t len;

    if (one->text == NULL || other->text == NULL || !config_address_parse(one->text, &a, &len) ||
        !config_address_parse(other->text, &b, &len) || port_of(&a) == 0 ||
        port_of(&a) != port_of(&b) || !(covers(&a, &b) || covers(&b, &a)))
        return;
    yaml_problem(one->node, problems, "%s takes the port of `%s`, %s; another would be right",
                 one->text, name, other->text);
}

/* Where nothing is set. */
static bool is_absent(const struct config *config, const char *section_name, const char *key)
{
    return given(config, section_name, key) == NULL;
}

static void check_listen(const struct config *config, struct problems *problems)
{
    const struct yaml_node *listen = yaml_node_get(yaml_root(config->yaml), "listen");

    check_address(&config->listen.https, NULL, problems);
    check_address(&config->listen.plain,
                  "a listener without TLS is for a strict proxy in front of it alone", problems);
    check_address(&config->listen.admin, "metrics and endpoint URLs are for operators alone",
                  problems);
    check_apart(&config->listen.https, "admin", &config->listen.admin, problems);
    check_apart(&config->listen.plain, "admin", &config->listen.admin, problems);
    check_apart(&config->listen.plain, "https", &config->listen.https, problems);
    if (listen == NULL || yaml_node_type(listen) != YAML_MAPPING)
        return; /* told already */
    if (is_absent(config, "listen", "https") && is_absent(config, "listen", "plain"))
        yaml_problem(listen, problems,
                     "no listener for webhooks; `https`, `plain` or both would be right");
    if (is_absent(config, "listen", "https"))
        return;
    if (is_absent(config, "listen", "certificate"))
        yaml_problem(listen, problems, "`https` needs `certificate`, a PEM file");
    if (is_absent(config, "listen", "key"))
        yaml_problem(listen, problems, "`https` needs `key`, a PEM file");
}

static void check_proxies(struct config *config, struct problems *problems)
{
    const struct yaml_texts *texts = &config->listen.trusted_proxies;
    struct networks *proxies = &config->listen.proxies;
    proxies->items = yaml_alloc(config->yaml, texts->count, sizeof *proxies->items);
    for (size_t i = 0; i < texts->count; i++) {
        const char *right = network_parse(texts->items[i], &proxies->items[i]);
        if (right != NULL)
            yaml_problem(given(config, "listen", "trusted_proxies"), problems, "'%s': %s",
                         texts->items[i], right);
    }
    proxies->count = texts->count;
}

/* Each event loop has its share, and even a single one wants several requests to live beside one
 * another. */
static void check_memory(const struct config *config, struct problems *problems)
{
    int64_t threads = config->threads > 8 ? config->threads : 8;
    int64_t bodies = CONFIG_BODIES_PER_THREAD * threads;
    if (config->listen.memory < bodies * config->listen.body)
        yaml_problem(section(config, "listen"), problems,
                     "`memory` of %lldMiB is too little for bodies of %lldKiB and up to %lld "
                     "threads; %lld times `body` or more would be right",
                     (long long)(config->listen.memory >> 20),
                     (long long)(config->listen.body >> 10), (long long)threads, (long long)bodies);
}

/* HOST, HOST:PORT, [ADDRESS] or [ADDRESS]:PORT; the host is not looked at. */
static bool has_good_port(struct slice authority)
{
    const char *bracket = memrchr(authority.ptr, ']', authority.len);
    const char *host_end = bracket != NULL ? bracket : authority.ptr;
    struct slice rest = slice_from(authority, (size_t)(host_end - authority.ptr));
    const char *colon = memchr(rest.ptr, ':', rest.len);
    in_port_t port;

    if (colon == NULL)
        return true;
    rest = slice_from(rest, (size_t)(colon + 1 - rest.ptr));
    return parse_port(rest, &port) && port != 0;
}

static void check_public_url(const struct config *config, struct problems *problems)
{
    const char *url = config->public_url;

    if (url == NULL)
        return;
    const char *colon = strstr(url, "://");
    const char *host = colon != NULL ? colon + 3 : url;
    bool good = strncmp(url, "https://", 8) == 0 || strncmp(url, "http://", 7) == 0;
    for (const char *p = host; *p != '\0'; p++)
        good &= *p > 0x20 && *p < 0x7f && strchr("\"#<>?@\\^`{|}", *p) == NULL;
    size_t len = strlen(host);
    good &= len > 0 && host[0] != '/' && host[0] != ':' && host[len - 1] != '/' &&
            has_good_port((struct slice){host, strcspn(host, "/")});
    if (!good)
        yaml_problem(yaml_node_get(yaml_root(config->yaml), "public_url"), problems,
                     "not valid; where platforms reach the gateway would be right, without a "
                     "trailing slash and with a port, if any, from 1 to 65535: "
                     "https://hooks.example.com");
}

static void check_deadlines(const struct config *config, struct problems *problems)
{
    int64_t sum = config->deadlines.gather_us + config->deadlines.claim_us +
                  config->deadlines.publish_us + config->deadlines.commit_us;

    if (sum > config->deadlines.answer_us)
        yaml_problem(section(config, "deadlines"), problems,
                     "gather, claim, publish and commit take %lldms together; at most `answer`, "
                     "%lldms, would be right",
                     (long long)((sum + 999) / 1000),
                     (long long)(config->deadlines.answer_us / 1000));
}

/* "password=" of a keyword/value string or of a URI's query, sslpassword too; or a URI's
 * user:password@. */
static bool holds_password(const char *conninfo)
{
    for (const char *p = conninfo; (p = strstr(p, "password")) != NULL;) {
        p += strlen("password");
        if (p[strspn(p, " \t\r\n")] == '=')
            return true;
    }
    const char *authority = strstr(conninfo, "://");
    if (authority == NULL || strncmp(conninfo, "postgres", 8) != 0)
        return false;
    authority += 3;
    size_t len = strcspn(authority, "/?");
    const char *at = memrchr(authority, '@', len);
    return at != NULL && memchr(authority, ':', (size_t)(at - authority)) != NULL;
}

/* The text itself is never repeated: it holds what should not be read. */
static void check_conninfo(const struct config *config, struct problems *problems)
{
    const char *conninfo = config->postgres.conninfo;
    if (conninfo == NULL)
        return;
    const char *why = conninfo_text_problem(conninfo);
    if (holds_password(conninfo))
        why = "holds a password; `password_file` would be right, so that this file is no secret";
    if (why != NULL)
        yaml_problem(given(config, "postgres", "conninfo"), problems, "%s", why);
}

bool config_is_topic(const char *name)
{
    size_t len = strlen(name);

    return len >= 1 && len <= 249 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == len;
}

bool config_is_held(const struct config *config, const char *topic)
{
    return strcmp(topic, config->hold.topic) == 0 || strcmp(topic, config->hold.markers) == 0;
}

/* A template is a topic's name once every {platform} is taken out. */
static bool is_topic_template(const char *template)
{
    static const char hole[] = "{platform}";
    char rest[256];
    size_t len = 0;

    while (*template != '\0' && len < sizeof rest - 1) {
        bool is_hole = strncmp(template, hole, sizeof hole - 1) == 0;
        rest[len++] = is_hole ? 'x' : *template;
        template += is_hole ? sizeof hole - 1 : 1;
    }
    rest[len] = '\0';
    return *template == '\0' && config_is_topic(rest);
}

static void check_hold_topic(const struct config *config, const char *key, const char *name,
                             struct problems *problems)
{
    if (!config_is_topic(name))
        yaml_problem(given(config, "hold", key), problems,
                     "'%s' is no topic; letters, digits, '.', '_' and '-' would be right", name);
}

static void check_topics(const struct config *config, struct problems *problems)
{
    const struct yaml_node *node = given(config, "kafka", "topic");

    if (node != NULL && !is_topic_template(config->kafka.topic))
        yaml_problem(node, problems,
                     "'%s' is no topic; letters, digits, '.', '_' and '-' would be right, and "
                     "{platform} where the platform's name shall stand",
                     config->kafka.topic);
    check_hold_topic(config, "topic", config->hold.topic, problems);
    check_hold_topic(config, "markers", config->hold.markers, problems);
    if (strcmp(config->hold.topic, config->hold.markers) == 0)
        yaml_problem(config_place(config, "hold", "markers"), problems,
                     "%s is `hold.topic` too; two different topics would be right",
                     config->hold.markers);
    for (size_t i = 0; i < config->platforms.enabled_count; i++) {
        const struct config_platform *platform = &config->platforms.enabled[i];
        if (platform->topic != NULL && !config_is_topic(platform->topic))
            yaml_problem(platform->node, problems,
                         "topic '%s' is no topic; letters, digits, '.', '_' and '-' would be right",
                         platform->topic);
    }
}

static void check_brokers(const struct config *config, struct problems *problems)
{
    const char *p = config->kafka.brokers;
    bool good = true;

    if (p == NULL)
        return;
    for (;;) {
        size_t len = strcspn(p, ",");
        const char *scheme = memmem(p, len, "://", 3), *host = scheme != NULL ? scheme + 3 : p;
        good &= len > 0 && strcspn(p, " \t\r\n") >= len &&
                has_good_port((struct slice){host, (size_t)(p + len - host)});
        if (p[len] == '\0')
            break;
        p += len + 1;
    }
    if (!good)
        yaml_problem(given(config, "kafka", "brokers"), problems,
                     "not valid; host:port pairs with commas between, no blanks and ports from 1 "
                     "to 65535 would be right");
}

/* Settings that a promise rests on, or that have a key of their own. A name that ends with a dot
 * stands for all that begin with it; the first that fits counts, NULL = allowed. */
static const struct {
    const char *name, *why;
} refused_settings[] = {
    {"bootstrap.servers", "`kafka.brokers` says it"},
    {"metadata.broker.list", "`kafka.brokers` says it"},
    {"acks", "a 2xx means that every in-sync replica has the record"},
    {"request.required.acks", "a 2xx means that every in-sync replica has the record"},
    {"enable.idempotence", "an event is in its topic once"},
    {"message.timeout.ms", "`deadlines.publish` decides, and parking relies on it"},
    {"request.timeout.ms", "`deadlines.publish` decides, and parking relies on it"},
    {"delivery.", "answers wait for every delivery report"},
    {"linger.ms", "`kafka.linger` says it"},
    {"queue.buffering.max.ms", "`kafka.linger` says it"},
    {"queue.buffering.", "`pipeline.queue` bounds what waits"},
    {"transactional.id", "Kafka's transactions can't span Postgres, and would need one name each"},
    {"compression.codec", NULL},
    {"compression.", "`compression.codec` alone is supported"},
    {"message.max.bytes", "it follows `listen.body`"},
    {"statistics.interval.ms", "readiness is read from the statistics"},
    {"partitioner", "a meeting's events share a partition, whoever wrote them"},
    {"allow.auto.create.topics", "`kafka.create_topics` says it"},
    {"sasl.password", "`kafka.password_file` says it: secrets come from files alone"},
    {"sasl.oauthbearer.client.secret", "secrets come from files alone"},
    {"ssl.key.password", "secrets come from files alone"},
    {"ssl.keystore.password", "secrets come from files alone"},
    {"ssl.key.pem", "secrets come from files alone: `ssl.key.location`"},
};

static const char *why_refused(const char *key)
{
    for (size_t i = 0; i < sizeof refused_settings / sizeof *refused_settings; i++) {
        const char *name = refused_settings[i].name;
        size_t len = strlen(name);
        bool fits = name[len - 1] == '.' ? strncmp(key, name, len) == 0 : strcmp(key, name) == 0;
        if (fits)
            return refused_settings[i].why;
    }
    return NULL;
}

static void check_settings(const struct config *config, struct problems *problems)
{
    for (size_t i = 0; i < config->kafka.setting_count; i++) {
        const struct config_setting *setting = &config->kafka.settings[i];
        const char *why = why_refused(setting->key);
        if (why == NULL && strncmp(setting->key, "test.", 5) == 0 &&
            !config->kafka.allow_weak_durability)
            why = "a mock cluster keeps nothing; only with `kafka.allow_weak_durability`";
        if (why != NULL)
            yaml_problem(setting->node, problems, "can't be set here: %s", why);
    }
}

void config_check(struct config *config, struct problems *problems)
{
    check_listen(config, problems);
    check_proxies(config, problems);
    check_memory(config, problems);
    check_public_url(config, problems);
    check_deadlines(config, problems);
    check_conninfo(config, problems);
    check_topics(config, problems);
    check_brokers(config, problems);
    check_settings(config, problems);
}
