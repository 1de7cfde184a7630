/* Signed notes: whatever opens must be exactly what its checkpoint is written as. The input is
 * taken twice: as it is, and as a text that gets a signature that holds, so that the fuzzer
 * reaches the parts behind the signature. Links crypt. */
#include "crypt/note.h"
#include "wire/base64.h"

#include <stdlib.h>

static struct signer *signer;
static uint8_t public_key[SIGN_PUBLIC_BYTES];

static void start_once(void)
{
    static const uint8_t seed[SIGN_SEED_BYTES] = {1};
    struct fault fault;
    if (signer)
        return;
    if (crypt_start(&fault) || signer_create(&signer, seed, &fault))
        abort();
    signer_public(public_key, signer);
}

static void open_note(struct span note)
{
    uint8_t storage[NOTE_MAX];
    struct buffer body = buffer_over(storage, sizeof storage);
    struct checkpoint checkpoint;
    struct fault fault;
    status opened = checkpoint_open(&checkpoint, note, "bulkhead", public_key, &fault);
    if (opened == CORRUPT)
        return;
    checkpoint_put_body(&body, &checkpoint);
    if (opened != OK || body.failed || !span_starts_with(note, buffer_span(&body)))
        abort();
}

static void open_signed(struct span text)
{
    uint8_t tagged[4 + SIGNATURE_BYTES], id[HASH_BYTES];
    _cleanup_buffer_ struct buffer note = buffer_of(NOTE_SIGNED_MAX);
    struct buffer parts = buffer_over(tagged, sizeof tagged);
    uint8_t signature[SIGNATURE_BYTES];
    struct fault fault;
    hash_parts(id, (struct span[]){SPAN("bulkhead\n\1"), SPAN_OF(public_key)}, 2);
    if (signer_sign(signature, signer, text, &fault))
        abort();
    buffer_put(&parts, (struct span){id, 4});
    buffer_put(&parts, SPAN_OF(signature));
    buffer_put(&note, text);
    buffer_put_text(&note, "\n\xe2\x80\x94 bulkhead ");
    base64_put(&note, buffer_span(&parts));
    buffer_put_text(&note, "\n");
    if (!note.failed)
        open_note(buffer_span(&note));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    start_once();
    open_note((struct span){data, size});
    open_signed((struct span){data, size});
    return 0;
}
