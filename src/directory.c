/* The snapshot behind directory.h: one open-addressing table from (kind, platform, text) to the
 * integration, built once by the loader and never changed after. Integrations that are paused or
 * disabled are found too: what that means is decided later on the path. Thread: built on the
 * loader's, read on any. */
/* SPDX-License-Identifier: Apache-2.0 */
#include "directory.h"

#include "event.h"
#include "hash.h"
#include "obj.h"
#include "seal.h"
#include "setup.h"

#include <stdatomic.h>
#include <sys/random.h>

#define DIRECTORY_MAGIC 0x64697265U
#define CHUNK_BYTES 65536

enum key_kind { KEY_TOKEN = 1, KEY_ACCOUNT, KEY_EMAIL, KEY_DOMAIN, KEY_WORKSPACE };

struct entry {
    const struct integration *integration;
    enum key_kind kind;
    size_t len;
    unsigned char text[]; /* a token's SHA-256, else the text itself */
};

struct slot {
    uint64_t hash;
    const struct entry *entry; /* NULL = free */
};

/* Memory that goes all at once. */
struct chunk {
    struct chunk *next;
    _Alignas(max_align_t) unsigned char bytes[];
};

struct directory {
    unsigned magic;
    atomic_size_t references;
    struct setup *setup;
    uint64_t seed;
    struct slot *slots;
    size_t slot_count; /* a power of two, at most half of it in use */
    size_t entry_count;
    struct integration **integrations;
    size_t count, size;
    struct chunk *chunks;
    size_t chunk_left; /* at the end of the first chunk */
    size_t chunk_size;
};

static void *arena(struct directory *directory, size_t size)
{
    size = (size + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
    if (size > directory->chunk_left) {
        size_t bytes = size > CHUNK_BYTES ? size : CHUNK_BYTES;
        struct chunk *chunk = xcalloc(1, sizeof *chunk + bytes);
        chunk->next = directory->chunks;
        directory->chunks = chunk;
        directory->chunk_size = directory->chunk_left = bytes;
    }
    void *p = directory->chunks->bytes + (directory->chunk_size - directory->chunk_left);
    directory->chunk_left -= size;
    return p;
}

static const char *arena_text(struct directory *directory, const char *text)
{
    size_t len = strlen(text) + 1;
    return memcpy(arena(directory, len), text, len);
}

/* Seeded, so that nobody who can choose account ids can choose the collisions. */
static uint64_t hash_of(const struct directory *directory, enum key_kind kind,
                        struct slice platform, struct slice text)
{
    uint64_t hash = hash_bytes(directory->seed ^ (uint64_t)kind, platform.ptr, platform.len);
    hash = hash_bytes(hash * 0x9e3779b97f4a7c15U, text.ptr, text.len);
    hash = (hash ^ (hash >> 32)) * 0xd6e8feb86659fd93U;
    return hash ^ (hash >> 32);
}

static const struct integration *find(const struct directory *directory, enum key_kind kind,
                                      struct slice platform, struct slice text)
{
    uint64_t hash = hash_of(directory, kind, platform, text);
    size_t mask = directory->slot_count - 1;
    for (size_t i = hash & mask; directory->slots[i].entry != NULL; i = (i + 1) & mask) {
        const struct slot *slot = &directory->slots[i];
        if (slot->hash == hash && slot->entry->kind == kind &&
            slice_equal(text, (struct slice){(const char *)slot->entry->text, slot->entry->len}) &&
            slice_is(platform, slot->entry->integration->platform))
            return slot->entry->integration;
    }
    return NULL;
}

static void place(struct directory *directory, uint64_t hash, const struct entry *entry)
{
    size_t mask = directory->slot_count - 1, i = hash & mask;
    while (directory->slots[i].entry != NULL)
        i = (i + 1) & mask;
    directory->slots[i] = (struct slot){hash, entry};
}

static void grow(struct directory *directory)
{
    struct slot *old = directory->slots;
    size_t old_count = directory->slot_count;
    directory->slot_count = old_count * 2;
    directory->slots = xcalloc(directory->slot_count, sizeof *directory->slots);
    for (size_t i = 0; i < old_count; i++) {
        if (old[i].entry != NULL)
            place(directory, old[i].hash, old[i].entry);
    }
    free(old);
}

static void insert(struct directory *directory, const struct integration *integration,
                   enum key_kind kind, struct slice text)
{
    struct slice platform = slice_of(integration->platform);
    if (text.len == 0 || find(directory, kind, platform, text) != NULL)
        return;
    if (directory->entry_count * 2 >= directory->slot_count)
        grow(directory);
    struct entry *entry = arena(directory, sizeof *entry + text.len);
    *entry = (struct entry){.integration = integration, .kind = kind, .len = text.len};
    memcpy(entry->text, text.ptr, text.len);
    place(directory, hash_of(directory, kind, platform, text), entry);
    directory->entry_count++;
}

struct directory *directory_ref(struct directory *directory)
{
    CHECK_OBJ(directory, DIRECTORY_MAGIC);
    atomic_fetch_add_explicit(&directory->references, 1, memory_order_relaxed);
    return directory;
}

struct directory *directory_unref(struct directory *directory)
{
    if (directory == NULL)
        return NULL;
    CHECK_OBJ(directory, DIRECTORY_MAGIC);
    if (atomic_fetch_sub_explicit(&directory->references, 1, memory_order_acq_rel) != 1)
        return NULL;
    for (size_t i = 0; i < directory->count; i++) {
        keyring_release(&directory->integrations[i]->secrets);
        quota_unref(directory->integrations[i]->quota);
    }
    for (struct chunk *chunk = directory->chunks, *next; chunk != NULL; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    free(directory->integrations);
    free(directory->slots);
    setup_unref(directory->setup);
    directory->magic = 0;
    free(directory);
    return NULL;
}

bool directory_is_shared(const struct directory *directory)
{
    CHECK_OBJ(directory, DIRECTORY_MAGIC);
    return atomic_load_explicit(&directory->references, memory_order_acquire) > 1;
}

const struct integration *directory_by_token(const struct directory *directory,
                                             struct slice platform, struct slice token)
{
    CHECK_OBJ(directory, DIRECTORY_MAGIC);
    if (token.len == 0)
        return NULL;
    unsigned char digest[SEAL_DIGEST];
    seal_digest(token, digest);
    return find(directory, KEY_TOKEN, platform,
                (struct slice){(const char *)digest, sizeof digest});
}

const struct integration *directory_by_account(const struct directory *directory,
                                               struct slice platform, struct slice account,
                                               struct slice email)
{
    CHECK_OBJ(directory, DIRECTORY_MAGIC);
    const struct integration *found = NULL;
    if (account.len > 0)
        found = find(directory, KEY_ACCOUNT, platform, account);
    if (found != NULL || email.len == 0)
        return found;
    found = find(directory, KEY_EMAIL, platform, email);
    if (found != NULL)
        return found;
    const char *at = memrchr(email.ptr, '@', email.len);
    if (at == NULL)
        return NULL;
    struct slice domain = slice_from(email, (size_t)(at - email.ptr) + 1);
    return domain.len > 0 ? find(directory, KEY_DOMAIN, platform, domain) : NULL;
}

const struct integration *directory_by_workspace(const struct directory *directory,
                                                 struct slice platform, struct slice workspace)
{
    CHECK_OBJ(directory, DIRECTORY_MAGIC);
    return find(directory, KEY_WORKSPACE, platform, workspace);
}

size_t directory_count(const struct directory *directory)
{
    CHECK_OBJ(directory, DIRECTORY_MAGIC);
    return directory->count;
}

struct directory *directory_new(struct setup *setup)
{
    struct directory *directory = xcalloc(1, sizeof *directory);
    directory->magic = DIRECTORY_MAGIC;
    atomic_init(&directory->references, 1);
    directory->setup = setup ? setup_ref(setup) : NULL;
    /* Without entropy the seed stays 0: slower under attack, not wrong. */
    if (getrandom(&directory->seed, sizeof directory->seed, GRND_NONBLOCK) < 0)
        directory->seed = 0;
    directory->slot_count = 64;
    directory->slots = xcalloc(directory->slot_count, sizeof *directory->slots);
    return directory;
}

static bool status_of(const char *text, enum integration_status *ret_status)
{
    static const char *const words[] = {
        [INTEGRATION_CONNECTED] = "connected",
        [INTEGRATION_PAUSED] = "paused",
        [INTEGRATION_DISABLED] = "disabled",
    };
    for (int i = 0; i < (int)(sizeof words / sizeof *words); i++) {
        if (strcmp(text, words[i]) == 0) {
            *ret_status = (enum integration_status)i;
            return true;
        }
    }
    return false;
}

struct integration *directory_add(struct directory *directory, const struct directory_row *row)
{
    assert(!directory_is_shared(directory));
    char uuid[SEAL_UUID_TEXT];
    enum integration_status status;
    struct event_id bytes; /* a UUID like this one */
    if (!seal_uuid(row->integration_id, uuid) || !event_id_parse(slice_of(uuid), &bytes) ||
        !status_of(row->status, &status))
        return NULL;
    struct integration *integration = arena(directory, sizeof *integration);
    integration->id = arena_text(directory, uuid);
    memcpy(integration->uuid, bytes.bytes, sizeof integration->uuid);
    integration->workspace = arena_text(directory, row->workspace);
    integration->platform = arena_text(directory, row->platform);
    integration->status = status;
    integration->quota = quota_get(row->workspace, row->platform, row->limits);
    if (directory->count == directory->size) {
        directory->size = directory->size ? directory->size * 2 : 64;
        directory->integrations =
            xrealloc(directory->integrations, directory->size * sizeof *directory->integrations);
    }
    directory->integrations[directory->count++] = integration;

    if (row->token != NULL && row->token[0] != '\0') {
        unsigned char digest[SEAL_DIGEST];
        seal_digest(slice_of(row->token), digest);
        insert(directory, integration, KEY_TOKEN,
               (struct slice){(const char *)digest, sizeof digest});
    }
    for (size_t i = 0; i < row->account_count; i++)
        insert(directory, integration, KEY_ACCOUNT, slice_of(row->accounts[i]));
    for (size_t i = 0; i < row->email_count; i++)
        insert(directory, integration, KEY_EMAIL, slice_of(row->emails[i]));
    for (size_t i = 0; i < row->domain_count; i++)
        insert(directory, integration, KEY_DOMAIN, slice_of(row->domains[i]));
    if (status == INTEGRATION_CONNECTED &&
        find(directory, KEY_WORKSPACE, slice_of(row->platform), slice_of(row->workspace)) == NULL)
        insert(directory, integration, KEY_WORKSPACE, slice_of(row->workspace));
    return integration;
}
