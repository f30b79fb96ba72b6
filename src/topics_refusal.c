/* The errors and the words behind topics_refusal.h. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "topics_refusal.h"

#include "config.h"
#include "log.h"
#include "secret_file.h"

#include <openssl/crypto.h>
#include <stdio.h>

/* librdkafka before 2.6.1 builds SCRAM's last message so that Kafka 4 refuses it, whatever the
 * password (its issue 4895). Debian 12 has 2.0.2. */
#define SCRAM_VERSION 0x02060100

enum topics_refusal topics_refusal_of(rd_kafka_resp_err_t err)
{
    switch (err) {
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
        return REFUSAL_LOGIN;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
        return REFUSAL_RIGHT;
    default:
        return REFUSAL_NONE;
    }
}

static const char *setting(const struct config *config, const char *key)
{
    for (size_t i = 0; i < config->kafka.setting_count; i++) {
        if (strcmp(config->kafka.settings[i].key, key) == 0)
            return config->kafka.settings[i].value;
    }
    return NULL;
}

void topics_refusal_tell(const struct config *config, enum topics_refusal refusal, const char *what,
                         char *text, size_t size)
{
    const char *user = setting(config, "sasl.username");
    if (user == NULL)
        user = "of the gateway";
    const char *mechanism = setting(config, "sasl.mechanisms");
    bool scram = mechanism != NULL && strncmp(mechanism, "SCRAM", 5) == 0;
    if (refusal == REFUSAL_LOGIN)
        snprintf(text, size,
                 "Kafka does not let the user %s in: %s; mend the user in Kafka or the password in "
                 "kafka.password_file, both without a restart, or kafka.settings with one%s%s",
                 user, what,
                 scram && rd_kafka_version() < SCRAM_VERSION
                     ? "; Kafka 4 takes SCRAM from librdkafka 2.6.1 and newer only, this is "
                     : "",
                 scram && rd_kafka_version() < SCRAM_VERSION ? rd_kafka_version_str() : "");
    else
        snprintf(text, size,
                 "Kafka does not let the user %s write: %s; grant it Write and Describe on the "
                 "topics (kafka-acls.sh)",
                 user, what);
}

void topics_take_password(const struct config *config, rd_kafka_t *handle)
{
    const char *user = setting(config, "sasl.username");
    if (config->kafka.password_file == NULL || user == NULL)
        return;
    char *reason = NULL;
    char *password = secret_file_password(config->kafka.password_file, &reason);
    if (password == NULL) {
        log_event(LOG_ERROR, "broker_password", "%s", reason);
        free(reason);
        return;
    }
    rd_kafka_error_t *error = rd_kafka_sasl_set_credentials(handle, user, password);
    if (error != NULL) /* it takes any but NULL */
        rd_kafka_error_destroy(error);
    OPENSSL_cleanse(password, strlen(password));
    free(password);
}
