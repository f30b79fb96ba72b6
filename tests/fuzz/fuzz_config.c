/* Fuzzing of the configuration: any bytes give a configuration or problems that point, never both
 * and never none. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct problems problems = {0};
    struct config *config = config_read_bytes("fuzz.yaml", data, size, &problems);

    assert((config == NULL) == problems_any(&problems));
    if (config != NULL)
        assert(config->postgres.conninfo != NULL && config->public_url != NULL);
    config_free(config);
    problems_release(&problems);
    return 0;
}
