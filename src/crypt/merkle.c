#include "crypt/merkle.h"

#include <assert.h>

enum { LEVELS = 64, PATH_MAX_HASHES = LEVELS + 1 };

static_assert((int)PATH_MAX_HASHES <= (int)CONSISTENCY_PROOF_MAX, "the longest proof fits");

/* Collected from the root downward, handed out from the leaf upward. */
struct path {
    uint32_t count;
    struct hash_value hashes[PATH_MAX_HASHES];
};

struct tree {
    merkle_read_node *read;
    void *context;
};

/* The larger part when n > 1 leaves are split: the greatest power of two below n. */
static uint64_t left_part(uint64_t n)
{
    return UINT64_C(1) << (63 - __builtin_clzll(n - 1));
}

static bool is_same(const struct hash_value *left, const struct hash_value *right)
{
    return span_equal(SPAN_OF(left->bytes), SPAN_OF(right->bytes));
}

struct hash_value merkle_leaf(struct span bytes)
{
    struct hash_value leaf;
    hash_parts(leaf.bytes, (struct span[]){SPAN("\0"), bytes}, 2);
    return leaf;
}

struct hash_value merkle_leaf_parts(const struct span *parts, size_t count)
{
    enum { PARTS_MAX = 15 };
    struct span prefixed[PARTS_MAX + 1] = {SPAN("\0")};
    assert(count <= PARTS_MAX);
    for (size_t i = 0; i < count; i++)
        prefixed[1 + i] = parts[i];
    struct hash_value leaf;
    hash_parts(leaf.bytes, prefixed, 1 + count);
    return leaf;
}

struct hash_value merkle_node(const struct hash_value *left, const struct hash_value *right)
{
    struct hash_value node;
    hash_parts(node.bytes,
               (struct span[]){SPAN("\1"), SPAN_OF(left->bytes), SPAN_OF(right->bytes)}, 3);
    return node;
}

status merkle_append(struct merkle_edge *edge, const struct hash_value *leaf,
                     merkle_on_node *on_node, void *context, struct fault *fault)
{
    if (edge->count != (uint32_t)__builtin_popcountll(edge->size))
        return FAIL(CORRUPT, fault, "a tree of %ju leaves has no edge of %u nodes",
                    (uintmax_t)edge->size, edge->count);
    if (edge->size == UINT64_MAX)
        return FAIL(TOO_LARGE, fault, "the tree is full");
    struct hash_value node = *leaf;
    uint32_t count = edge->count, level = 0;
    if (on_node)
        TRY(on_node(context, 0, edge->size, &node, fault));
    for (; edge->size >> level & 1; level++) {
        node = merkle_node(&edge->nodes[--count], &node);
        if (on_node)
            TRY(on_node(context, level + 1, edge->size >> (level + 1), &node, fault));
    }
    edge->nodes[count++] = node;
    edge->count = count;
    edge->size++;
    return OK;
}

struct hash_value merkle_root(const struct merkle_edge *edge)
{
    assert(edge->count == (uint32_t)__builtin_popcountll(edge->size));
    struct hash_value root;
    if (edge->count == 0) {
        hash(root.bytes, (struct span){0});
        return root;
    }
    root = edge->nodes[edge->count - 1];
    for (uint32_t i = edge->count - 1; i > 0; i--)
        root = merkle_node(&edge->nodes[i - 1], &root);
    return root;
}

/* The root over leaves [begin, end), a range that the splitting of a tree yields: begin is then a
 * multiple of every power of two in the range's length, so complete nodes make it up. */
static status range_root(struct hash_value *ret, const struct tree *tree, uint64_t begin,
                         uint64_t end, struct fault *fault)
{
    struct hash_value nodes[LEVELS];
    uint32_t count = 0;
    while (begin < end) {
        uint32_t level = 63 - (uint32_t)__builtin_clzll(end - begin);
        TRY(tree->read(&nodes[count++], tree->context, level, begin >> level, fault));
        begin += UINT64_C(1) << level;
    }
    struct hash_value root = nodes[count - 1];
    for (uint32_t i = count - 1; i > 0; i--)
        root = merkle_node(&nodes[i - 1], &root);
    *ret = root;
    return OK;
}

static status add_range(struct path *path, const struct tree *tree, uint64_t begin, uint64_t end,
                        struct fault *fault)
{
    assert(path->count < PATH_MAX_HASHES);
    TRY(range_root(&path->hashes[path->count], tree, begin, end, fault));
    path->count++;
    return OK;
}

static void hand_out(struct hash_value *ret, uint32_t *ret_count, const struct path *path)
{
    for (uint32_t i = 0; i < path->count; i++)
        ret[i] = path->hashes[path->count - 1 - i];
    *ret_count = path->count;
}

status merkle_inclusion(struct hash_value *ret, uint32_t *ret_count, uint64_t index, uint64_t size,
                        merkle_read_node *read, void *context, struct fault *fault)
{
    if (index >= size)
        return FAIL(BAD_FIELD, fault, "index: %ju, must be below the tree's size, %ju",
                    (uintmax_t)index, (uintmax_t)size);
    const struct tree tree = {read, context};
    struct path path = {0};
    uint64_t begin = 0, end = size;
    while (end - begin > 1) {
        uint64_t middle = begin + left_part(end - begin);
        if (index < middle) {
            TRY(add_range(&path, &tree, middle, end, fault));
            end = middle;
        } else {
            TRY(add_range(&path, &tree, begin, middle, fault));
            begin = middle;
        }
    }
    hand_out(ret, ret_count, &path);
    return OK;
}

status merkle_consistency(struct hash_value *ret, uint32_t *ret_count, uint64_t from, uint64_t to,
                          merkle_read_node *read, void *context, struct fault *fault)
{
    if (from == 0 || from > to)
        return FAIL(BAD_FIELD, fault, "from: %ju, must be 1 to the other tree's size, %ju",
                    (uintmax_t)from, (uintmax_t)to);
    const struct tree tree = {read, context};
    struct path path = {0};
    uint64_t begin = 0, end = to;
    while (from != end) {
        uint64_t middle = begin + left_part(end - begin);
        if (from <= middle) {
            TRY(add_range(&path, &tree, middle, end, fault));
            end = middle;
        } else {
            TRY(add_range(&path, &tree, begin, middle, fault));
            begin = middle;
        }
    }
    if (begin > 0) /* else what is left is the whole old tree, whose root the verifier has */
        TRY(add_range(&path, &tree, begin, end, fault));
    hand_out(ret, ret_count, &path);
    return OK;
}

status merkle_check_inclusion(const struct hash_value *leaf, uint64_t index, uint64_t size,
                              const struct hash_value *proof, uint32_t count,
                              const struct hash_value *root, struct fault *fault)
{
    if (index >= size)
        return FAIL(CORRUPT, fault, "inclusion proof: leaf %ju of a tree of %ju", (uintmax_t)index,
                    (uintmax_t)size);
    uint64_t at = index, last = size - 1;
    struct hash_value made = *leaf;
    for (uint32_t i = 0; i < count; i++) {
        if (last == 0)
            return FAIL(CORRUPT, fault, "inclusion proof: too long");
        if (at & 1 || at == last) {
            made = merkle_node(&proof[i], &made);
            for (; !(at & 1) && at != 0; at >>= 1)
                last >>= 1;
        } else {
            made = merkle_node(&made, &proof[i]);
        }
        at >>= 1;
        last >>= 1;
    }
    if (last != 0)
        return FAIL(CORRUPT, fault, "inclusion proof: too short");
    if (!is_same(&made, root))
        return FAIL(CORRUPT, fault, "inclusion proof: it leads to another root");
    return OK;
}

/* RFC 9162 section 2.1.4.2 for 0 < from < to. */
static status check_growth(uint64_t from, uint64_t to, const struct hash_value *proof,
                           uint32_t count, const struct hash_value *from_root,
                           const struct hash_value *to_root, struct fault *fault)
{
    if (count == 0)
        return FAIL(CORRUPT, fault, "consistency proof: too short");
    bool starts_at_root = (from & (from - 1)) == 0;
    struct hash_value old_made = starts_at_root ? *from_root : proof[0], new_made = old_made;
    uint64_t at = from - 1, last = to - 1;
    for (; at & 1; at >>= 1)
        last >>= 1;
    for (uint32_t i = starts_at_root ? 0 : 1; i < count; i++) {
        if (last == 0)
            return FAIL(CORRUPT, fault, "consistency proof: too long");
        if (at & 1 || at == last) {
            old_made = merkle_node(&proof[i], &old_made);
            new_made = merkle_node(&proof[i], &new_made);
            for (; !(at & 1) && at != 0; at >>= 1)
                last >>= 1;
        } else {
            new_made = merkle_node(&new_made, &proof[i]);
        }
        at >>= 1;
        last >>= 1;
    }
    if (last != 0)
        return FAIL(CORRUPT, fault, "consistency proof: too short");
    if (!is_same(&old_made, from_root) || !is_same(&new_made, to_root))
        return FAIL(CORRUPT, fault, "consistency proof: it leads to other roots");
    return OK;
}

status merkle_check_consistency(uint64_t from, uint64_t to, const struct hash_value *proof,
                                uint32_t count, const struct hash_value *from_root,
                                const struct hash_value *to_root, struct fault *fault)
{
    if (from > to)
        return FAIL(CORRUPT, fault, "consistency proof: from %ju leaves down to %ju",
                    (uintmax_t)from, (uintmax_t)to);
    if (from != 0 && from != to)
        return check_growth(from, to, proof, count, from_root, to_root, fault);
    if (count != 0)
        return FAIL(CORRUPT, fault, "consistency proof: too long");
    if (from == to && !is_same(from_root, to_root))
        return FAIL(CORRUPT, fault, "consistency proof: two roots for one size");
    return OK;
}
