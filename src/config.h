/* The configuration: one YAML file, bound strictly to this struct; const after loading.
 * conf/hookgate.yaml documents every key. Paths are resolved when it is read: a relative one in
 * $CREDENTIALS_DIRECTORY when a file is there, else beside the configuration's own file. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "address.h"
#include "problem.h"
#include "yaml.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define CONFIG_THREADS_MAX 64
/* Of listen.body, for each event loop's share of listen.memory: a request takes its body twice, in
 * buffers that double. With less, a body of that size would be shed whenever it came. */
#define CONFIG_BODIES_PER_THREAD 4

struct config_address { /* "127.0.0.1:8443", "[::1]:8443", "0.0.0.0:443"; port 0 is allowed */
    const char *text;   /* NULL = not listening */
    const struct yaml_node *node;
};

struct config_platform {
    const char *name;
    struct config_secret_file { /* application secrets, newest first */
        const char *file;
        const struct yaml_node *file_node;
        int64_t not_after_wall_us; /* 0 = no end */
        const char *not_after;     /* as written */
        const struct yaml_node *not_after_node;
    } * secret_files;
    size_t secret_file_count;
    const struct yaml_node *secret_files_node; /* filled by the binder; read by config.c */
    const char *topic;                         /* NULL = the template */
    const struct yaml_node *topic_node;
    const char *fallback_workspace; /* NULL = none */
    const struct yaml_node *node;
};

struct config_limits { /* webhooks per workspace and platform; 0 = no limit */
    int64_t minute, hour;
};

struct config_setting { /* passed to librdkafka as it is */
    const char *key, *value;
    const struct yaml_node *node;
};

struct config {
    struct yaml *yaml;
    const char *path, *directory;

    struct {
        struct config_address https, plain, admin;
        const char *certificate, *key; /* PEM files, for https */
        int64_t connections;           /* over all listeners of webhooks */
        int64_t memory;                /* bytes of connections and bodies under way */
        int64_t body;                  /* bytes */
        int64_t headers;               /* bytes of the path and all header lines */
        int64_t request_us;            /* headers and body must be in within */
        int64_t backlog;
        struct yaml_texts trusted_proxies;
        struct networks proxies; /* the same, parsed */
    } listen;
    const char *public_url; /* "https://hooks.example.com", without a trailing slash */
    int64_t threads;        /* event loops; 0 = one per core */
    const struct yaml_node *threads_node;

    struct {
        int64_t answer_us;      /* 2.5 s: from the last body byte to the answer */
        int64_t gather_us;      /* 0.3 s: the wait for a connection when there is none */
        int64_t claim_us;       /* 0.4 s */
        int64_t publish_us;     /* 1 s */
        int64_t commit_us;      /* 0.5 s */
        int64_t drain_delay_us; /* SIGTERM: readyz says no, but serving goes on */
        int64_t stop_us;        /* then everything must have ended within */
    } deadlines;

    struct {
        int64_t batch;       /* events in one transaction */
        int64_t queue;       /* events waiting for a transaction, per event loop */
        int64_t batch_bytes; /* of bodies in one transaction */
        int64_t queue_bytes; /* of bodies that wait for one, per event loop */
        int64_t suspects; /* events that wait one by one for a key that another transaction holds,
                             per loop */
    } pipeline;

    struct {
        const char *conninfo;      /* libpq keyword/value string or URI, without a password */
        const char *password_file; /* NULL = none */
        int64_t lanes;             /* connections per event loop */
        int64_t refresh_us;        /* of the directory, besides notifications */
        int64_t dedup_window_us;
        int64_t security_events_us; /* how long mcp.security_events are kept */
        const char *key_file; /* opens integration_secrets; NULL = integrations have no secrets */
    } postgres;

    struct {
        const char *brokers;
        const char *topic; /* template: webhooks.{platform} */
        bool create_topics;
        int64_t partitions, replication; /* of topics that are created */
        bool allow_weak_durability;
        int64_t linger_us;
        struct config_setting *settings; /* librdkafka properties; those that hookgate's promises
                                            rest on are refused */
        size_t setting_count;
        const struct yaml_node *settings_node; /* filled by the binder; read by config.c */
        const char *password_file;             /* sasl.password; NULL = none */
    } kafka;

    struct {                     /* the outbox, for events that Kafka does not take */
        int64_t bytes;           /* of bodies, over all instances; beyond it 503 */
        int64_t age_us;          /* of the oldest; beyond it 503 */
        int64_t rate;            /* events a second that this instance drains */
        int64_t decide_after_us; /* a record in flight is looked for in Kafka after so long */
    } park;

    struct { /* while Postgres is away */
        const char *topic, *markers;
        int64_t age_us; /* of one outage */
        int64_t bytes;  /* of one outage, in one process */
        int64_t rate;   /* records a second that an instance takes over */
    } hold;

    struct {
        const char *directory;
        const struct yaml_node *directory_node; /* NULL = a command line named it */
        struct config_platform *enabled; /* those that are named under platforms.enabled; all of the
                                            folder when none is */
        size_t enabled_count;
        const struct yaml_node *enabled_node;
    } platforms;

    struct {
        struct config_limits standard, free, pro, enterprise; /* by the workspace's plan */
        int64_t failed_signatures; /* per source address and minute; 0 = no limit */
    } limits;

    bool allow_root; /* serve as root */
    int log_level;   /* enum log_level */
};

/* What a command reads when it is told no other: conf/hookgate.yaml of the working directory, else
 * /etc/hookgate/hookgate.yaml. */
const char *config_default_path(void);

/* NULL when a problem was added. */
MUST_CHECK struct config *config_read(const char *path, struct problems *problems);
MUST_CHECK struct config *config_read_bytes(const char *name, const void *bytes, size_t len,
                                            struct problems *problems);
void config_free(struct config *config);

/* Every key, in the order of the file; ends with key NULL. */
extern const struct yaml_field config_fields[];

/* What a reload does with each key that differs: "file:line:column: key: …". */
struct config_changes {
    struct problems taken;
    struct problems restart; /* kept as it was, because it needs a restart */
};
/* Compares `next`, which nobody else has seen yet, with the one in effect. Keys that need a restart
 * get the value of the process' `start`, which is the present one too, so that `next` says what is
 * in effect. It may point into the document of `start` then, which must live for ever; `present`
 * may go. */
void config_compare(struct config *next, const struct config *present, const struct config *start,
                    struct config_changes *changes);
void config_changes_release(struct config_changes *changes);

/* The socket address of a text like those of `listen`: numeric, no names. False when it is none. */
bool config_address_parse(const char *text, struct sockaddr_storage *ret_address,
                          socklen_t *ret_len);

/* Event loops: as many as the configuration says, or one per core as far as memory allows. */
int64_t config_threads(const struct config *config);
/* The limits of a plan of core.workspaces. */
const struct config_limits *config_plan(const struct config *config, const char *plan);

/* A name that Kafka takes for a topic. */
bool config_is_topic(const char *name);
/* Is this one of the two topics in which events are held? Their records must never expire, and what
 * is no held record is deleted there. */
bool config_is_held(const struct config *config, const char *topic);

/* Where to point: at the value of a section's key, at the section where it has no such key, else at
 * the file's beginning. */
const struct yaml_node *config_place(const struct config *config, const char *section,
                                     const char *key);

/* The semantic pass over what is bound; called by config_read() only (config_check.c). */
void config_check(struct config *config, struct problems *problems);

/* Whether the files that the configuration names can be read, are closed to others where they hold
 * a secret, and look like what they should be. False when a problem was added. */
bool config_check_files(const struct config *config, struct problems *problems);

/* Platforms of the configuration: loaded, with secrets, topics and metric series set; NULL when a
 * problem was added. */
struct platforms;
MUST_CHECK struct platforms *config_load_platforms(const struct config *config,
                                                   struct problems *problems);
/* Adds a problem when a platform's topic is one in which events are held: its records would
 * be deleted there. Loading asks it; to be asked again once config_compare() has put the present
 * `hold` back. */
void config_check_held(const struct config *config, const struct platforms *platforms,
                       struct problems *problems);
