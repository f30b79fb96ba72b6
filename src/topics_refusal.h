/* REFUSALS: what Kafka does not let us do although it is there: log in, or use what we have no
 * right to. Nobody but an operator mends that, and then we go on without a restart. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <librdkafka/rdkafka.h>
#include <stddef.h>

struct config;

enum topics_refusal {
    REFUSAL_NONE,  /* another error, or none */
    REFUSAL_LOGIN, /* the user or the password is not accepted */
    REFUSAL_RIGHT, /* the user may not do that */
};

enum topics_refusal topics_refusal_of(rd_kafka_resp_err_t err);

/* Says what is refused, `what` being librdkafka's words, and what mends it. */
void topics_refusal_tell(const struct config *config, enum topics_refusal refusal, const char *what,
                         char *text, size_t size);

/* The handle's next login uses what kafka.password_file says now; without one, or when it can't be
 * read (which is logged), it keeps what it has. Reads a small file. */
void topics_take_password(const struct config *config, rd_kafka_t *handle);
