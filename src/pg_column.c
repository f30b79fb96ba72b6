/* The arrays and parameters behind pg_column.h, in Postgres' binary form
 * (src/backend/utils/adt/arrayfuncs.c, array_recv). Called by the files that hold SQL. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "pg_column.h"

#include <endian.h>

static void column_put(struct column *column, const void *bytes, size_t len)
{
    if (column->len + len > column->size) {
        column->size = (column->len + len) * 2;
        column->bytes = xrealloc(column->bytes, column->size);
    }
    memcpy(column->bytes + column->len, bytes, len);
    column->len += len;
}

static void column_put_int32(struct column *column, int32_t value)
{
    uint32_t wire = htobe32((uint32_t)value);
    column_put(column, &wire, sizeof wire);
}

static void column_put_int64(struct column *column, int64_t value)
{
    uint64_t wire = htobe64((uint64_t)value);
    column_put(column, &wire, sizeof wire);
}

/* Header of a one-dimensional array: dimensions, has-null flag, element type, length, lower bound.
 */
void column_begin(struct column *column, enum oid type, size_t count, bool has_null)
{
    column->len = 0;
    column_put_int32(column, 1);
    column_put_int32(column, has_null);
    column_put_int32(column, (int32_t)type);
    column_put_int32(column, (int32_t)count);
    column_put_int32(column, 1);
}

void column_item(struct column *column, const void *bytes, size_t len)
{
    column_put_int32(column, (int32_t)len);
    column_put(column, bytes, len);
}

void column_item_int32(struct column *column, int32_t value)
{
    column_put_int32(column, sizeof value);
    column_put_int32(column, value);
}

void column_item_int64(struct column *column, int64_t value)
{
    column_put_int32(column, sizeof value);
    column_put_int64(column, value);
}

struct pg_param column_param(const struct column *column)
{
    return (struct pg_param){column->bytes, (int)column->len};
}

void column_item_null(struct column *column)
{
    column_put_int32(column, -1);
}

void column_item_int32_or_null(struct column *column, int32_t value)
{
    if (value < 0)
        column_item_null(column);
    else
        column_item_int32(column, value);
}

void column_item_int64_or_null(struct column *column, int64_t value)
{
    if (value < 0)
        column_item_null(column);
    else
        column_item_int64(column, value);
}

void column_release(struct column *column)
{
    free(column->bytes);
    *column = (struct column){0};
}

struct pg_param param_text(const char *text)
{
    return (struct pg_param){text, (int)strlen(text)};
}

struct pg_param param_int32(int32_t value, uint32_t *wire)
{
    *wire = htobe32((uint32_t)value);
    return (struct pg_param){(const char *)wire, sizeof *wire};
}

struct pg_param param_int64(int64_t value, uint64_t *wire)
{
    *wire = htobe64((uint64_t)value);
    return (struct pg_param){(const char *)wire, sizeof *wire};
}

int32_t column_int32_at(const PGresult *result, int row, int column, int32_t if_null)
{
    uint32_t wire;
    if (PQgetisnull(result, row, column))
        return if_null;
    assert(PQgetlength(result, row, column) == (int)sizeof wire);
    memcpy(&wire, PQgetvalue(result, row, column), sizeof wire);
    return (int32_t)be32toh(wire);
}

int64_t column_int64_at(const PGresult *result, int row, int column, int64_t if_null)
{
    uint64_t wire;
    if (PQgetisnull(result, row, column))
        return if_null;
    assert(PQgetlength(result, row, column) == (int)sizeof wire);
    memcpy(&wire, PQgetvalue(result, row, column), sizeof wire);
    return (int64_t)be64toh(wire);
}
