/* Paths and content types: a token that comes out is one that may go into a look-up. Input: the
 * path, a newline, the value of a content-type header. Platforms are faked at link time. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "obj.h"
#include "route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const aliases[] = {"recording-completed"};
static const struct platform zoom = {.name = "zoom", .aliases = aliases, .alias_count = 1};

const struct platform *platforms_find(const struct platforms *platforms, struct slice name)
{
    (void)platforms;
    return slice_is(name, "zoom") ? &zoom : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct inbound in = {.method = SLICE_LITERAL("POST"), .path = {(const char *)data, size}};
    const char *newline = size > 0 ? memchr(data, '\n', size) : NULL;
    if (newline != NULL) {
        in.path.len = (size_t)(newline - in.path.ptr);
        in.headers[in.header_count++] = (struct inbound_header){
            SLICE_LITERAL("content-type"), {newline + 1, size - in.path.len - 1}};
    }
    struct route route;
    enum outcome outcome = route_find(NULL, &in, &route);
    assert(outcome != OUTCOME_NONE || route.platform == &zoom);
    assert(route.endpoint.len == 0 || (route.endpoint.len >= 16 && route.endpoint.len <= 128));
    for (size_t i = 0; i < route.endpoint.len; i++)
        assert(route.endpoint.ptr[i] > ' ' && route.endpoint.ptr[i] != '/');
    outcome = route_check_headers(&zoom, &in);
    assert(outcome == OUTCOME_NONE || outcome == OUTCOME_CONTENT_TYPE);
    return 0;
}
