/* vectors.h: tests/vectors/jwt.tsv in memory, and a verifier that knows the issuers it names. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "authz/token.h"
#include "base/hex.h"

enum { VECTORS_MAX = 512 };

static const int64_t VECTOR_NOW = 1800000000;
#define VECTOR_TENANT "00112233445566778899aabbccddeeff"

struct vector {
    char *check, *verdict, *reason, *name, *token;
};

static struct {
    struct vector rows[VECTORS_MAX];
    size_t count;
    uint8_t builtin[32], ext1[32], ext2[32], bound[32], stranger[32];
} vectors;

static inline uint8_t *vector_key(const char *name)
{
    return strcmp(name, "builtin") == 0 ? vectors.builtin
         : strcmp(name, "ext1") == 0    ? vectors.ext1
         : strcmp(name, "ext2") == 0    ? vectors.ext2
         : strcmp(name, "bound") == 0   ? vectors.bound
                                        : vectors.stranger;
}

static inline void vectors_load(const char *path)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char *line = NULL;
    size_t size = 0;
    struct fault fault;
    while (getline(&line, &size, file) > 0) {
        char *rest = line, *columns[5] = {0};
        line[strcspn(line, "\n")] = '\0';
        for (size_t i = 0; i < 5; i++)
            columns[i] = strsep(&rest, "\t");
        if (strcmp(columns[0], "key") == 0) {
            assert_int_equal(hex_decode(vector_key(columns[1]), 32, span_of_text(columns[2]),
                                        "key", &fault), OK);
            continue;
        }
        assert_non_null(columns[4]);
        assert_true(vectors.count < VECTORS_MAX);
        vectors.rows[vectors.count++] = (struct vector){
            columns[0], columns[1], columns[2], columns[3], columns[4]};
        line = NULL;
        size = 0;
    }
    free(line);
    fclose(file);
}

static inline void vectors_free(void)
{
    for (size_t i = 0; i < vectors.count; i++)
        free(vectors.rows[i].check);
}

static inline const struct vector *vector_named(const char *check, const char *name)
{
    for (size_t i = 0; i < vectors.count; i++)
        if (strcmp(vectors.rows[i].check, check) == 0 && strcmp(vectors.rows[i].name, name) == 0)
            return &vectors.rows[i];
    fail_msg("no vector %s %s", check, name);
    return NULL;
}

static inline void vector_add_key(struct token_issuer *issuer, const char *id, const uint8_t *key)
{
    struct token_key *added = &issuer->keys[issuer->key_count++];
    snprintf(added->id, sizeof added->id, "%s", id);
    added->alg = TOKEN_EDDSA;
    added->length = 32;
    memcpy(added->public_key, key, 32);
}

static inline struct token_issuer vector_issuer_ext(void)
{
    struct token_issuer issuer = {
        .iss = "https://id.example/", .aud = "https://bulkhead.example", .tenant_claim = "org",
        .user_claim = "sub", .scope_claim = "scope", .clearance_claim = "clearance",
        .lifetime_max_seconds = 3600, .early_seconds = 60, .late_seconds = 60,
    };
    char long_id[KEY_ID_MAX + 1] = {0};
    memset(long_id, 'k', KEY_ID_MAX);
    vector_add_key(&issuer, "one", vectors.ext1);
    vector_add_key(&issuer, "two", vectors.ext2);
    vector_add_key(&issuer, long_id, vectors.ext1);
    vector_add_key(&issuer, "../../keys/one' OR '1'='1", vectors.ext2);
    return issuer;
}

static inline struct token_issuer vector_issuer_bound(void)
{
    struct token_issuer issuer = {
        .iss = "https://acme.example/", .aud = TOKEN_AUDIENCE, .tenant_claim = "tenant_id",
        .user_claim = "sub", .scope_claim = "scope", .clearance_claim = "clearance",
        .tenant = VECTOR_TENANT, .lifetime_max_seconds = 900,
    };
    vector_add_key(&issuer, "one", vectors.bound);
    return issuer;
}

static inline struct token_verifier *vector_verifier(void)
{
    struct token_verifier *verifier = NULL;
    struct fault fault;
    struct token_issuer builtin = token_issuer_builtin(vectors.builtin);
    struct token_issuer ext = vector_issuer_ext(), bound = vector_issuer_bound();
    assert_int_equal(token_verifier_create(&verifier, &fault), OK);
    assert_int_equal(token_verifier_put(verifier, &builtin, &fault), OK);
    assert_int_equal(token_verifier_put(verifier, &ext, &fault), OK);
    assert_int_equal(token_verifier_put(verifier, &bound, &fault), OK);
    return verifier;
}
