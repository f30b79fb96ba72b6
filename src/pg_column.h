/* Values in Postgres' binary form. A binary array under construction: one parameter of a statement
 * that carries a whole batch. Single parameters. And numbers of a result that was asked for in
 * binary. */
/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "pg.h"

enum oid {
    OID_BYTEA = 17,
    OID_INT8 = 20,
    OID_INT4 = 23,
    OID_TEXT = 25,
    OID_TIMESTAMPTZ = 1184,
    OID_UUID = 2950
};

/* Where Postgres' times begin, 2000-01-01, in Unix time. */
#define PG_EPOCH_US INT64_C(946684800000000)

struct column { /* zero it before first use */
    char *bytes;
    size_t len, size;
};

/* Begins anew, keeping the memory: exactly `count` items must follow. */
void column_begin(struct column *column, enum oid type, size_t count, bool has_null);
void column_item(struct column *column, const void *bytes, size_t len);
void column_item_int32(struct column *column, int32_t value);
void column_item_int64(struct column *column, int64_t value);
void column_item_null(struct column *column);
/* NULL when negative. */
void column_item_int32_or_null(struct column *column, int32_t value);
void column_item_int64_or_null(struct column *column, int64_t value);
/* Valid until the column changes. */
struct pg_param column_param(const struct column *column);
void column_release(struct column *column);

/* `wire` holds the value until the statement is queued. */
struct pg_param param_text(const char *text);
struct pg_param param_int32(int32_t value, uint32_t *wire);
struct pg_param param_int64(int64_t value, uint64_t *wire);

/* Of a column of that type. */
int32_t column_int32_at(const PGresult *result, int row, int column, int32_t if_null);
int64_t column_int64_at(const PGresult *result, int row, int column, int64_t if_null);
