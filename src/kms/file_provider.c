#define _GNU_SOURCE
#include "kms/file_provider.h"

#include "base/cleanup.h"
#include "base/cursor.h"
#include "base/hex.h"
#include "base/secret.h"
#include "crypt/aead.h"
#include "kms/key_files.h"
#include "wire/messages.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define ROOT_FILE "root.key"
#define SEALED_MAGIC SPAN("BHKEY001")
#define KEK_SUFFIX ".kek"
#define NEXT_KEK_SUFFIX ".next.kek"
#define DISABLED_SUFFIX ".disabled"
#define SEED_SUFFIX ".seed"

static_assert(PROVIDER_WRAP_BYTES == AEAD_NONCE_BYTES + AEAD_TAG_BYTES, "what wrap appends");

enum {
    FIRST_VERSION = 1,
    VERSION_AT = 8 + 1,
    SEALED_HEAD_BYTES = 8 + 1 + 4 + TENANT_ID_BYTES, /* magic, kind, version, id: the AAD */
    SEALED_BYTES = SEALED_HEAD_BYTES + KEY_BYTES + PROVIDER_WRAP_BYTES,
};

struct secrets { /* in secret memory */
    uint8_t records[KEY_BYTES];
    uint8_t key[KEY_BYTES];     /* the one in use, wiped after it */
    uint8_t derived[KEY_BYTES]; /* likewise */
};

struct file_provider {
    struct provider base;
    int directory;
    struct secrets *secrets;
    struct aead *keks, *seeds; /* what KEKs and what seeds are sealed under */
    struct signer *platform, *issuer;
};

static struct file_provider *self_of(struct provider *provider)
{
    return (struct file_provider *)provider;
}

static void wipe_key(struct file_provider *self)
{
    secret_wipe(self->secrets->key, KEY_BYTES);
    secret_wipe(self->secrets->derived, KEY_BYTES);
}

static void file_of(char ret[KEY_FILE_NAME], const struct key_name *name)
{
    assert(name->kind == KEY_TENANT || name->kind == KEY_PLATFORM || name->kind == KEY_ISSUER);
    if (name->kind != KEY_TENANT) {
        snprintf(ret, KEY_FILE_NAME, "%s" SEED_SUFFIX,
                 name->kind == KEY_PLATFORM ? "platform" : "issuer");
        return;
    }
    char id[TENANT_ID_TEXT];
    hex_encode(id, SPAN_OF(name->id));
    snprintf(ret, KEY_FILE_NAME, "%s%s", id, name->next ? NEXT_KEK_SUFFIX : KEK_SUFFIX);
}

static void disabled_file_of(char ret[KEY_FILE_NAME], const struct key_name *name)
{
    char id[TENANT_ID_TEXT];
    assert(name->kind == KEY_TENANT);
    hex_encode(id, SPAN_OF(name->id));
    snprintf(ret, KEY_FILE_NAME, "%s" DISABLED_SUFFIX, id);
}

static void put_head(struct buffer *out, const struct key_name *name, uint32_t version)
{
    buffer_put(out, SEALED_MAGIC);
    buffer_put_u8(out, (uint8_t)name->kind);
    buffer_put_u32(out, version);
    buffer_put(out, SPAN_OF(name->id));
}

static struct aead *sealer_of(struct file_provider *self, enum key_kind kind)
{
    return kind == KEY_TENANT ? self->keks : self->seeds;
}

/* Into secrets->key; the caller calls wipe_key. */
static status load_key(uint32_t *ret_version, struct file_provider *self,
                       const struct key_name *name, struct fault *fault)
{
    char file[KEY_FILE_NAME];
    uint8_t sealed[SEALED_BYTES], due[SEALED_HEAD_BYTES];
    file_of(file, name);
    TRY(key_file_read(sealed, sizeof sealed, self->directory, file, fault));
    struct buffer head = buffer_over(due, sizeof due);
    struct cursor said = cursor_over((struct span){sealed + VERSION_AT, 4});
    uint32_t version;
    TRY(cursor_u32(&version, &said, fault));
    put_head(&head, name, name->kind == KEY_TENANT ? version : FIRST_VERSION);
    if (version == 0 || !span_equal((struct span){sealed, SEALED_HEAD_BYTES}, SPAN_OF(due)))
        return FAIL(CORRUPT, fault, "%s: damaged: its head is not that of this key", file);
    const uint8_t *nonce = sealed + SEALED_HEAD_BYTES, *text = nonce + AEAD_NONCE_BYTES;
    status opened = aead_open(self->secrets->key, sealer_of(self, name->kind), nonce,
                              text + KEY_BYTES, (struct span){text, KEY_BYTES}, SPAN_OF(due),
                              fault);
    if (opened == CORRUPT)
        return FAIL(CORRUPT, fault, "%s: damaged, or not sealed under this " ROOT_FILE, file);
    if (opened == OK)
        *ret_version = version;
    return opened;
}

/* Fills what is asked about the key that load_key loaded. */
static status describe(struct key_facts *ret, struct file_provider *self,
                       const struct key_name *name, uint32_t version, struct fault *fault)
{
    struct key_facts facts = {.version = version};
    if (name->kind == KEY_TENANT) {
        key_derive(self->secrets->derived, self->secrets->key, SPAN(""),
                   "bulkhead kek fingerprint v1");
        hash(facts.fingerprint, SPAN_OF(self->secrets->derived));
        *ret = facts;
        return OK;
    }
    struct signer **signer = name->kind == KEY_PLATFORM ? &self->platform : &self->issuer;
    if (!*signer)
        TRY(signer_create(signer, self->secrets->key, fault));
    signer_public(facts.public_key, *signer);
    *ret = facts;
    return OK;
}

static status find(struct key_facts *ret, struct provider *provider, const struct key_name *name,
                   struct fault *fault)
{
    struct file_provider *self = self_of(provider);
    uint32_t version;
    status found = load_key(&version, self, name, fault);
    if (found == OK)
        found = describe(ret, self, name, version, fault);
    wipe_key(self);
    return found;
}

/* A next one only beside the one whose place it is to take. */
static status version_due(uint32_t *ret, struct file_provider *self, const struct key_name *name,
                          struct fault *fault)
{
    struct key_name other = *name;
    struct key_facts facts = {.version = 0};
    other.next = false;
    if (name->next)
        TRY(find(&facts, &self->base, &other, fault));
    if (facts.version == UINT32_MAX)
        return FAIL(CONFLICT, fault, "this key was rotated as often as can be");
    *ret = facts.version + 1;
    return OK;
}

static status make_key(struct file_provider *self, const struct key_name *name,
                       struct fault *fault)
{
    uint32_t version;
    char file[KEY_FILE_NAME];
    uint8_t storage[SEALED_BYTES], nonce[AEAD_NONCE_BYTES], tag[AEAD_TAG_BYTES], text[KEY_BYTES];
    struct buffer sealed = buffer_over(storage, sizeof storage);
    file_of(file, name);
    TRY(version_due(&version, self, name, fault));
    put_head(&sealed, name, version);
    crypt_random(self->secrets->key, KEY_BYTES);
    aead_seal(text, nonce, tag, sealer_of(self, name->kind), SPAN_OF(self->secrets->key),
              buffer_span(&sealed));
    wipe_key(self);
    buffer_put(&sealed, SPAN_OF(nonce));
    buffer_put(&sealed, SPAN_OF(text));
    buffer_put(&sealed, SPAN_OF(tag));
    assert(!sealed.failed && sealed.length == SEALED_BYTES);
    /* writable by its owner, who must be able to overwrite it */
    return key_file_write(self->directory, file, 0600, buffer_span(&sealed), fault);
}

static status create(struct key_facts *ret, struct provider *provider, const struct key_name *name,
                     struct fault *fault)
{
    struct file_provider *self = self_of(provider);
    struct fault absent;
    status found = find(ret, provider, name, &absent);
    if (found == OK) /* an earlier attempt may have failed between the rename and its sync */
        return key_files_settle(self->directory, fault);
    if (found != NOT_FOUND) {
        *fault = absent;
        return found;
    }
    TRY(make_key(self, name, fault));
    return find(ret, provider, name, fault); /* what is acknowledged has been read back */
}

static status destroy(struct provider *provider, const struct key_name *name, struct fault *fault)
{
    char file[KEY_FILE_NAME];
    file_of(file, name);
    return key_file_destroy(self_of(provider)->directory, file, fault);
}

static status succeed(struct provider *provider, const struct key_name *name, struct fault *fault)
{
    struct file_provider *self = self_of(provider);
    char file[KEY_FILE_NAME], next[KEY_FILE_NAME];
    struct key_name successor = *name;
    struct key_facts facts;
    successor.next = true;
    TRY(find(&facts, provider, &successor, fault)); /* one that opens, before the other goes */
    file_of(file, name);
    file_of(next, &successor);
    TRY(key_file_destroy(self->directory, file, fault));
    if (renameat(self->directory, next, self->directory, file))
        return FAIL(INTERNAL, fault, "%s: rename: %s", next, strerror(errno));
    return key_files_settle(self->directory, fault);
}

/* Whatever stands under that name: also what an operator has put there by hand. */
static status usable(struct provider *provider, const struct key_name *name, struct fault *fault)
{
    char file[KEY_FILE_NAME];
    struct stat facts;
    disabled_file_of(file, name);
    if (fstatat(self_of(provider)->directory, file, &facts, AT_SYMLINK_NOFOLLOW) == 0)
        return FAIL(UNAVAILABLE, fault, DETAIL_KEY_WITHDRAWN);
    if (errno != ENOENT)
        return FAIL(INTERNAL, fault, "%s: stat: %s", file, strerror(errno));
    return OK;
}

static status withdraw(struct provider *provider, const struct key_name *name, bool withdrawn,
                       struct fault *fault)
{
    struct file_provider *self = self_of(provider);
    char file[KEY_FILE_NAME];
    struct fault ignored;
    disabled_file_of(file, name);
    if (withdrawn == (usable(provider, name, &ignored) == UNAVAILABLE))
        return key_files_settle(self->directory, fault);
    if (withdrawn)
        return key_file_write(self->directory, file, 0600, SPAN(""), fault);
    if (unlinkat(self->directory, file, 0) && errno != ENOENT)
        return FAIL(INTERNAL, fault, "%s: unlink: %s", file, strerror(errno));
    return key_files_settle(self->directory, fault);
}

struct search {
    const char *suffix;
    bool found;
};

static status look_for(void *context, const char *name, struct fault *fault)
{
    struct search *search = context;
    (void)fault;
    search->found = search->found || key_file_has_suffix(name, search->suffix);
    return OK;
}

static status holds(bool *ret, struct provider *provider, enum key_kind kind, struct fault *fault)
{
    struct search search = {.suffix = kind == KEY_TENANT ? KEK_SUFFIX : SEED_SUFFIX};
    TRY(key_files_each(self_of(provider)->directory, look_for, &search, fault));
    *ret = search.found;
    return OK;
}

/* A KEK made ready; the caller frees it. */
static status prepare(struct aead **ret, struct provider *provider, const struct key_name *name,
                      struct fault *fault)
{
    struct file_provider *self = self_of(provider);
    uint32_t version;
    assert(name->kind == KEY_TENANT);
    status loaded = load_key(&version, self, name, fault);
    if (loaded == OK)
        loaded = aead_create(ret, self->secrets->key, fault);
    wipe_key(self);
    return loaded;
}

static status wrap(struct buffer *out, struct provider *provider, const struct key_name *name,
                   struct span plain, struct span associated, struct fault *fault)
{
    struct aead *kek;
    uint8_t nonce[AEAD_NONCE_BYTES], tag[AEAD_TAG_BYTES], text[KEY_BYTES];
    if (plain.length > sizeof text)
        return FAIL(TOO_LARGE, fault, "wrap: %zu bytes, at most %zu", plain.length, sizeof text);
    TRY(prepare(&kek, provider, name, fault));
    aead_seal(text, nonce, tag, kek, plain, associated);
    aead_free(kek);
    buffer_put(out, SPAN_OF(nonce));
    buffer_put(out, (struct span){text, plain.length});
    buffer_put(out, SPAN_OF(tag));
    return buffer_check(out, "wrapped key", fault);
}

static status unwrap(uint8_t *ret, struct provider *provider, const struct key_name *name,
                     struct span wrapped, struct span associated, struct fault *fault)
{
    struct aead *kek;
    if (wrapped.length < PROVIDER_WRAP_BYTES)
        return FAIL(CORRUPT, fault, "wrapped key: %zu bytes are none", wrapped.length);
    TRY(prepare(&kek, provider, name, fault));
    const uint8_t *text = wrapped.data + AEAD_NONCE_BYTES;
    size_t length = wrapped.length - PROVIDER_WRAP_BYTES;
    status opened = aead_open(ret, kek, wrapped.data, text + length, (struct span){text, length},
                              associated, fault);
    aead_free(kek);
    if (opened == CORRUPT)
        return FAIL(CORRUPT, fault, "wrapped key: damaged, or not of this tenant");
    return opened;
}

static status sign(struct buffer *out, struct provider *provider, const struct key_name *name,
                   struct span message, struct fault *fault)
{
    struct file_provider *self = self_of(provider);
    if (name->kind == KEY_RECORDS) {
        uint8_t mac[HASH_BYTES];
        hash_keyed(mac, SPAN_OF(self->secrets->records), message);
        buffer_put(out, SPAN_OF(mac));
        return buffer_check(out, "record", fault);
    }
    struct signer *signer = name->kind == KEY_PLATFORM ? self->platform : self->issuer;
    uint8_t signature[SIGNATURE_BYTES];
    assert(name->kind != KEY_TENANT && signer); /* found at start */
    TRY(signer_sign(signature, signer, message, fault));
    buffer_put(out, SPAN_OF(signature));
    return buffer_check(out, "signature", fault);
}

static void close_provider(struct provider *provider)
{
    struct file_provider *self = self_of(provider);
    aead_free(self->keks);
    aead_free(self->seeds);
    signer_free(self->platform);
    signer_free(self->issuer);
    secret_free(self->secrets, sizeof *self->secrets);
    free(self);
}

static const struct provider_methods methods = {
    .create = create, .destroy = destroy, .find = find, .holds = holds,
    .succeed = succeed, .usable = usable, .withdraw = withdraw,
    .wrap = wrap, .unwrap = unwrap, .sign = sign, .close = close_provider,
};

static status in_use_without_root(void *context, const char *name, struct fault *fault)
{
    static const char *const suffixes[] = {KEK_SUFFIX, SEED_SUFFIX, ".gone", ".tombstone",
                                           "anchors"};
    (void)context;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (key_file_has_suffix(name, suffixes[i]))
            return FAIL(CORRUPT, fault, ROOT_FILE " is missing, but %.63s needs it: restore "
                        ROOT_FILE, name);
    return OK;
}

/* Into secrets->key. */
static status load_root(struct file_provider *self, struct fault *fault)
{
    struct stat facts;
    struct fault absent;
    status found = key_file_read(self->secrets->key, KEY_BYTES, self->directory, ROOT_FILE,
                                 &absent);
    if (found == NOT_FOUND) {
        TRY(key_files_each(self->directory, in_use_without_root, NULL, fault));
        crypt_random(self->secrets->key, KEY_BYTES);
        return key_file_write(self->directory, ROOT_FILE, 0400, SPAN_OF(self->secrets->key),
                              fault);
    }
    if (found != OK) {
        *fault = absent;
        return found;
    }
    if (fstatat(self->directory, ROOT_FILE, &facts, AT_SYMLINK_NOFOLLOW))
        return FAIL(INTERNAL, fault, ROOT_FILE ": stat: %s", strerror(errno));
    if (facts.st_mode & 077)
        return FAIL(CORRUPT, fault, ROOT_FILE ": mode %03o lets others at it; 0400 is due",
                    (unsigned)facts.st_mode & 0777);
    return key_files_settle(self->directory, fault); /* before anything is sealed under it */
}

static status sealer(struct aead **ret, struct file_provider *self, const char *purpose,
                     struct fault *fault)
{
    key_derive(self->secrets->derived, self->secrets->key, SPAN(""), purpose);
    return aead_create(ret, self->secrets->derived, fault);
}

static status load(struct file_provider *self, struct fault *fault)
{
    TRY(load_root(self, fault));
    TRY(sealer(&self->keks, self, "bulkhead root seals keks v1", fault));
    TRY(sealer(&self->seeds, self, "bulkhead root seals seeds v1", fault));
    key_derive(self->secrets->records, self->secrets->key, SPAN(""), "bulkhead root records v1");
    return OK;
}

status file_provider_open(struct provider **ret, int directory, struct fault *fault)
{
    struct file_provider *self = calloc(1, sizeof *self);
    if (!self)
        return FAIL(INTERNAL, fault, "key store: out of memory");
    self->base.methods = &methods;
    self->directory = directory;
    self->secrets = secret_alloc(sizeof *self->secrets);
    if (!self->secrets) {
        free(self);
        return FAIL(INTERNAL, fault, "key store: the kernel refuses secret memory");
    }
    status loaded = load(self, fault);
    wipe_key(self);
    if (loaded != OK) {
        close_provider(&self->base);
        return loaded;
    }
    *ret = &self->base;
    return OK;
}
