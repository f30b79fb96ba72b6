/* The configuration and its platforms as one object: see setup.h. Called by serve at start and by
 * every reload. Thread: any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "setup.h"

#include "config.h"
#include "platform.h"
#include "topics_ensure.h"

#define SETUP_MAGIC 0x73657475u

struct setup *setup_read(const char *path, struct problems *problems)
{
    size_t before = problems_total(problems);
    struct setup *setup = xcalloc(1, sizeof *setup);
    setup->magic = SETUP_MAGIC;
    atomic_init(&setup->references, 1);
    setup->config = config_read(path, problems);
    if (setup->config != NULL) {
        setup->platforms = config_load_platforms(setup->config, problems);
        (void)config_check_files(setup->config, problems);
        topics_check_settings(setup->config, problems);
    }
    return problems_total(problems) == before ? setup : setup_unref(setup);
}

struct setup *setup_ref(struct setup *setup)
{
    CHECK_OBJ(setup, SETUP_MAGIC);
    atomic_fetch_add_explicit(&setup->references, 1, memory_order_relaxed);
    return setup;
}

struct setup *setup_unref(struct setup *setup)
{
    if (setup == NULL)
        return NULL;
    CHECK_OBJ(setup, SETUP_MAGIC);
    if (atomic_fetch_sub_explicit(&setup->references, 1, memory_order_acq_rel) != 1)
        return NULL;
    platforms_free(setup->platforms);
    config_free(setup->config);
    setup->magic = 0;
    free(setup);
    return NULL;
}
