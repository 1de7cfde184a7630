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
    uint8_t es256[64], rs256[4 + 256], rs256_4096[4 + 512];
} vectors;

static inline void vector_set_key(const char *name, const char *hex)
{
    const struct {
        const char *name;
        uint8_t *bytes;
        size_t length;
    } keys[] = {
        {"builtin", vectors.builtin, 32}, {"ext1", vectors.ext1, 32},
        {"ext2", vectors.ext2, 32}, {"bound", vectors.bound, 32},
        {"stranger", vectors.stranger, 32}, {"es256", vectors.es256, 64},
        {"rs256", vectors.rs256, 4 + 256}, {"rs256-4096", vectors.rs256_4096, 4 + 512},
    };
    struct fault fault;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(name, keys[i].name) != 0)
            continue;
        assert_int_equal(hex_decode(keys[i].bytes, keys[i].length, span_of_text(hex), "key",
                                    &fault), OK);
        return;
    }
    fail_msg("no key is called %s", name);
}

static inline void vectors_load(const char *path)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, file) > 0) {
        char *rest = line, *columns[5] = {0};
        line[strcspn(line, "\n")] = '\0';
        for (size_t i = 0; i < 5; i++)
            columns[i] = strsep(&rest, "\t");
        if (strcmp(columns[0], "key") == 0) {
            vector_set_key(columns[1], columns[2]);
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

static inline void vector_add_key_of(struct token_issuer *issuer, const char *id,
                                     enum token_alg alg, struct span key)
{
    struct token_key *added = &issuer->keys[issuer->key_count++];
    snprintf(added->id, sizeof added->id, "%s", id);
    added->alg = alg;
    added->length = (uint32_t)key.length;
    memcpy(added->public_key, key.data, key.length);
}

static inline void vector_add_key(struct token_issuer *issuer, const char *id, const uint8_t *key)
{
    vector_add_key_of(issuer, id, TOKEN_EDDSA, (struct span){key, 32});
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

static inline struct token_issuer vector_issuer_foreign(void)
{
    struct token_issuer issuer = {
        .iss = "https://foreign.example/", .aud = TOKEN_AUDIENCE, .tenant_claim = "org",
        .user_claim = "uid", .scope_claim = "scp", .clearance_claim = "level",
        .lifetime_max_seconds = 3600, .early_seconds = 60, .late_seconds = 60,
    };
    vector_add_key_of(&issuer, "es", TOKEN_ES256, SPAN_OF(vectors.es256));
    vector_add_key_of(&issuer, "rs", TOKEN_RS256, SPAN_OF(vectors.rs256));
    vector_add_key_of(&issuer, "ps", TOKEN_PS256, SPAN_OF(vectors.rs256));
    vector_add_key_of(&issuer, "rs-large", TOKEN_RS256, SPAN_OF(vectors.rs256_4096));
    vector_add_key_of(&issuer, "ps-large", TOKEN_PS256, SPAN_OF(vectors.rs256_4096));
    vector_add_key(&issuer, "ed", vectors.ext1);
    return issuer;
}

static inline struct token_issuer vector_issuer_once(void)
{
    struct token_issuer issuer = vector_issuer_bound();
    snprintf(issuer.iss, sizeof issuer.iss, "https://once.example/");
    issuer.tenant[0] = '\0';
    issuer.jti_once = true;
    return issuer;
}

static inline struct token_verifier *vector_verifier(void)
{
    struct token_verifier *verifier = NULL;
    struct fault fault;
    struct token_issuer builtin = token_issuer_builtin(vectors.builtin);
    struct token_issuer ext = vector_issuer_ext(), bound = vector_issuer_bound();
    struct token_issuer foreign = vector_issuer_foreign(), once = vector_issuer_once();
    assert_int_equal(token_verifier_create(&verifier, &fault), OK);
    assert_int_equal(token_verifier_put(verifier, &builtin, &fault), OK);
    assert_int_equal(token_verifier_put(verifier, &ext, &fault), OK);
    assert_int_equal(token_verifier_put(verifier, &bound, &fault), OK);
    assert_int_equal(token_verifier_put(verifier, &foreign, &fault), OK);
    assert_int_equal(token_verifier_put(verifier, &once, &fault), OK);
    return verifier;
}
