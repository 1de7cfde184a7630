/* merkle.h: the tree of a transparency log (RFC 6962 section 2.1), appended leaf by leaf.
 *
 * leaf = H(0x00 || bytes), node = H(0x01 || left || right). Nodes are read through a callback, so
 * that the tree may live in a database, in tiles or in memory. */
#pragma once

#include "base/limits.h"
#include "crypt/crypt.h"

struct hash_value {
    uint8_t bytes[HASH_BYTES];
};

/* The right edge: roots of the complete subtrees, largest first. All that appending needs. */
struct merkle_edge {
    uint64_t size;              /* leaves */
    uint32_t count;             /* set bits of size */
    struct hash_value nodes[64];
};

struct hash_value merkle_leaf(struct span bytes);
/* H(0x00 || parts...), at most 15 of them */
struct hash_value merkle_leaf_parts(const struct span *parts, size_t count);
struct hash_value merkle_node(const struct hash_value *left, const struct hash_value *right);

/* Appends; when on_node is not NULL it is told of every complete node made, the leaf first:
 * level 0 is a leaf, index counts nodes of that level. */
typedef status merkle_on_node(void *context, uint32_t level, uint64_t index,
                              const struct hash_value *node, struct fault *fault);
MUST_CHECK status merkle_append(struct merkle_edge *edge, const struct hash_value *leaf,
                                merkle_on_node *on_node, void *context, struct fault *fault);

struct hash_value merkle_root(const struct merkle_edge *edge); /* size 0: H("") */

/* Reads a complete node (level, index); NOT_FOUND when the store lacks it. */
typedef status merkle_read_node(struct hash_value *ret, void *context, uint32_t level,
                                uint64_t index, struct fault *fault);

/* Proofs by RFC 6962 2.1.1 and 2.1.2 (PATH and PROOF). ret: room for CONSISTENCY_PROOF_MAX.
 * BAD_FIELD unless index < size, 0 < from <= to. */
MUST_CHECK status merkle_inclusion(struct hash_value *ret, uint32_t *ret_count, uint64_t index,
                                   uint64_t size, merkle_read_node *read, void *context,
                                   struct fault *fault);
MUST_CHECK status merkle_consistency(struct hash_value *ret, uint32_t *ret_count, uint64_t from,
                                     uint64_t to, merkle_read_node *read, void *context,
                                     struct fault *fault);

/* Verification by RFC 9162 2.1.3.2 and 2.1.4.2. CORRUPT when the proof does not hold. from == 0
 * needs an empty proof and always holds. */
MUST_CHECK status merkle_check_inclusion(const struct hash_value *leaf, uint64_t index,
                                         uint64_t size, const struct hash_value *proof,
                                         uint32_t count, const struct hash_value *root,
                                         struct fault *fault);
MUST_CHECK status merkle_check_consistency(uint64_t from, uint64_t to,
                                           const struct hash_value *proof, uint32_t count,
                                           const struct hash_value *from_root,
                                           const struct hash_value *to_root, struct fault *fault);
