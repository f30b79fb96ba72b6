/* Connection strings and listen addresses, the operator's own words: whatever stands there, ours
 * wins, and no complaint repeats it (somebody may have put a password there). */
/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "conninfo.h"

#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

#define OURS "-c statement_timeout=1s"

static void check(const struct conninfo *conninfo, const char *text)
{
    const char *const *keywords = conninfo_keywords(conninfo);
    const char *const *values = conninfo_values(conninfo);
    const char *options = NULL, *encoding = NULL;
    size_t count = 0;
    for (; keywords[count] != NULL; count++) {
        assert(values[count] != NULL);
        if (strcmp(keywords[count], "options") == 0)
            options = values[count];
        if (strcmp(keywords[count], "client_encoding") == 0)
            encoding = values[count];
        if (strcmp(keywords[count], "dbname") == 0)
            assert(strcmp(values[count], text) == 0);
    }
    assert(count > 0 && encoding != NULL && strcmp(encoding, "UTF8") == 0);
    size_t len = strlen(options);
    assert(len >= strlen(OURS) && strcmp(options + len - strlen(OURS), OURS) == 0);
    const char *problem = conninfo_problem(conninfo);
    if (problem != NULL && strlen(text) > 16)
        assert(strstr(problem, text) == NULL);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    char *text = size > 0 ? xstrndup((const char *)data, size) : xstrdup("");
    struct conninfo *conninfo = conninfo_new(text, NULL, OURS);
    check(conninfo, text);
    conninfo_unref(conninfo);
    struct sockaddr_storage address;
    socklen_t len = 0;
    if (config_address_parse(text, &address, &len))
        assert((address.ss_family == AF_INET || address.ss_family == AF_INET6) && len > 0 &&
               len <= sizeof address);
    free(text);
    return 0;
}
