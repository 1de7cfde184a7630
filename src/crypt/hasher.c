/* hasher.c: SHA-256 of a stream. */
#include "crypt/crypt.h"
#include "crypt/openssl.h"

#include <stdlib.h>

struct hasher {
    EVP_MD_CTX *running, *copy;
};

status hasher_create(struct hasher **ret, struct fault *fault)
{
    struct hasher *hasher = calloc(1, sizeof *hasher);
    if (!hasher)
        return FAIL(INTERNAL, fault, "out of memory for a hash");
    hasher->running = EVP_MD_CTX_new();
    hasher->copy = EVP_MD_CTX_new();
    if (!hasher->running || !hasher->copy) {
        hasher_free(hasher);
        return FAIL(INTERNAL, fault, "out of memory for a hash");
    }
    hasher_reset(hasher);
    *ret = hasher;
    return OK;
}

struct hasher *hasher_free(struct hasher *hasher)
{
    if (!hasher)
        return NULL;
    EVP_MD_CTX_free(hasher->running);
    EVP_MD_CTX_free(hasher->copy);
    free(hasher);
    return NULL;
}

void hasher_reset(struct hasher *hasher)
{
    demand(EVP_DigestInit_ex2(hasher->running, crypt_algorithms.sha256, NULL) == 1);
}

void hasher_add(struct hasher *hasher, struct span bytes)
{
    if (bytes.length)
        demand(EVP_DigestUpdate(hasher->running, bytes.data, bytes.length) == 1);
}

void hasher_value(uint8_t ret[HASH_BYTES], const struct hasher *hasher)
{
    unsigned length;
    demand(EVP_MD_CTX_copy_ex(hasher->copy, hasher->running) == 1);
    demand(EVP_DigestFinal_ex(hasher->copy, ret, &length) == 1 && length == HASH_BYTES);
}
