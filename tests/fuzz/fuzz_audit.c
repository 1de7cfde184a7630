/* fuzz_audit: an export, or a witness file, as anyone may hand it in, against the offline verifier.
 * An export is fed whole and in pieces, which must agree; and what is accepted under our key must
 * be an export that our key signed. The fuzzer cannot sign: so it also edits, by its first bytes,
 * one that holds, which any edit must break. Links export. */
#include "fuzz.h"
#include "store/export.h"

#include <string.h>

enum { ENTRIES = 3, FILE_MAX = KIB(8) };

static uint8_t key[SIGN_PUBLIC_BYTES];
static struct buffer whole, witness_file;

static void start(void)
{
    static const uint8_t seed[SIGN_SEED_BYTES] = {7};
    struct checkpoint checkpoint = {.origin = "bulkhead/ledger"};
    struct merkle_edge edge = {0};
    struct signer *signer;
    struct fault fault;
    uint8_t storage[NOTE_MAX];
    struct buffer note = buffer_over(storage, sizeof storage);
    CHECK(crypt_start(&fault) == OK && signer_create(&signer, seed, &fault) == OK);
    signer_public(key, signer);
    whole = buffer_of(FILE_MAX);
    export_put_header(&whole, checkpoint.origin, key);
    for (int i = 0; i < ENTRIES; i++) {
        char entry[64];
        static const uint8_t salt[AUDIT_SALT_BYTES] = {9};
        snprintf(entry, sizeof entry, "{\"index\":%d,\"action\":\"memory.add\"}", i);
        export_put_entry(&whole, SPAN_OF(salt), span_of_text(entry));
        const struct span parts[] = {SPAN_OF(salt), span_of_text(entry)};
        struct hash_value leaf = merkle_leaf_parts(parts, 2);
        CHECK(merkle_append(&edge, &leaf, NULL, NULL, &fault) == OK);
    }
    checkpoint.size = ENTRIES;
    checkpoint.root = merkle_root(&edge);
    CHECK(checkpoint_sign(&note, &checkpoint, PLATFORM_KEY_NAME, signer, &fault) == OK);
    export_put_checkpoint(&whole, buffer_span(&note));
    witness_file = buffer_of(FILE_MAX);
    witness_put_header(&witness_file, checkpoint.origin, key);
    witness_put_checkpoint(&witness_file, 1795299022123456, buffer_span(&note));
    CHECK(!whole.failed && !witness_file.failed);
    signer_free(signer);
}

static status verify(struct span file, size_t piece, const uint8_t *demanded)
{
    struct export_verifier *verifier;
    struct export_summary summary;
    struct fault fault;
    const struct export_demands demands = {.key = demanded};
    CHECK(export_verifier_create(&verifier, &demands, &fault) == OK);
    status done = OK;
    while (done == OK && file.length > 0) {
        struct span part = {file.data, file.length < piece ? file.length : piece};
        done = export_verifier_feed(verifier, part, &fault);
        file = (struct span){file.data + part.length, file.length - part.length};
    }
    if (done == OK)
        done = export_verifier_end(&summary, verifier, &fault);
    export_verifier_free(verifier);
    CHECK(done == OK || done == CORRUPT);
    return done;
}

/* Overwrites, from a place on, bytes of the export that holds. */
static void edit(struct span change)
{
    if (change.length < 3)
        return;
    uint8_t copy[FILE_MAX];
    memcpy(copy, whole.data, whole.length);
    size_t at = ((size_t)change.data[0] << 8 | change.data[1]) % whole.length;
    for (size_t i = 2; i < change.length && at < whole.length; i++, at++)
        copy[at] = change.data[i];
    bool same = memcmp(copy, whole.data, whole.length) == 0;
    CHECK((verify((struct span){copy, whole.length}, whole.length, key) == OK) == same);
}

static bool is_witness(struct span file)
{
    struct witness *witness;
    struct fault fault;
    status read = witness_read(&witness, file, &fault);
    if (read != OK)
        return false;
    bool ours = span_equal(SPAN_OF(witness->key), SPAN_OF(key));
    /* a header alone needs no signature; a checkpoint under our key is the one that we signed */
    CHECK(!ours || witness->count <= 1);
    for (uint32_t i = 1; i < witness->count; i++)
        CHECK(witness->checkpoints[i - 1].size < witness->checkpoints[i].size);
    witness_free(witness);
    return true;
}

/* The same for a witness file: what is left of it under an edit is itself, or none. */
static void edit_witness(struct span change)
{
    if (change.length < 3)
        return;
    uint8_t copy[FILE_MAX];
    size_t header = span_find(buffer_span(&witness_file), '\n') + 1;
    memcpy(copy, witness_file.data, witness_file.length);
    size_t at = header + ((size_t)change.data[0] << 8 | change.data[1])
                             % (witness_file.length - header);
    for (size_t i = 2; i < change.length && at < witness_file.length; i++, at++)
        copy[at] = change.data[i];
    if (!is_witness((struct span){copy, witness_file.length}))
        CHECK(memcmp(copy, witness_file.data, witness_file.length) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool started;
    if (!started)
        start();
    started = true;
    struct span file = {data, size};
    status at_once = verify(file, size + 1, NULL);
    CHECK(verify(file, 1 + size % 7, NULL) == at_once);
    if (verify(file, size + 1, key) == OK) /* the fuzzer cannot have made it up */
        CHECK(span_equal(file, buffer_span(&whole)));
    edit(file);
    is_witness(file);
    edit_witness(file);
    return 0;
}
