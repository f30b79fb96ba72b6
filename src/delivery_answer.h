/* DELIVERY_ANSWER: status and body of the HTTP answer to a delivery. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

struct delivery;

/* Room for an external id of which every byte is escaped, and for a challenge. */
#define DELIVERY_ANSWER_MAX 4096

struct delivery_answer {
    int status;
    int retry_after_s; /* 0 = no header */
    const char *content_type;
    size_t len;
    char body[DELIVERY_ANSWER_MAX];
};

/* The delivery has its outcome and lives during the call; the answer outlives it. */
void delivery_answer(const struct delivery *d, struct delivery_answer *ret);
