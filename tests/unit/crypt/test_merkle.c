#include "crypt/merkle.h"

#include "crypt_vectors.h"
#include "support.h"

enum { LEAVES = 130, LEVELS = 9 };

/* Every complete node, as merkle_append tells of them; the roots of all sizes; the leaves. */
static struct {
    struct merkle_edge edge;
    struct hash_value nodes[LEVELS][LEAVES], roots[LEAVES + 1], leaves[LEAVES];
    uint64_t counts[LEVELS];
} tree;

static status keep_node(void *context, uint32_t level, uint64_t index,
                        const struct hash_value *node, struct fault *fault)
{
    (void)fault;
    assert_ptr_equal(context, &tree);
    assert_int_equal(index, tree.counts[level]); /* each once and in order */
    tree.nodes[level][index] = *node;
    tree.counts[level]++;
    return OK;
}

/* Only what a tree of the limit's size holds: a proof must not look at later nodes. */
static status read_node(struct hash_value *ret, void *context, uint32_t level, uint64_t index,
                        struct fault *fault)
{
    const uint64_t *limit = context;
    if (level >= LEVELS || (index + 1) << level > *limit)
        return FAIL(NOT_FOUND, fault, "node %u/%ju", level, (uintmax_t)index);
    *ret = tree.nodes[level][index];
    return OK;
}

static int grow(void **state)
{
    if (start(state))
        return -1;
    struct fault fault;
    tree.roots[0] = merkle_root(&tree.edge);
    for (size_t i = 0; i < LEAVES; i++) {
        const uint8_t bytes[2] = {(uint8_t)(i >> 8), (uint8_t)i};
        tree.leaves[i] = merkle_leaf(SPAN_OF(bytes));
        if (merkle_append(&tree.edge, &tree.leaves[i], keep_node, &tree, &fault))
            return -1;
        tree.roots[i + 1] = merkle_root(&tree.edge);
    }
    return 0;
}

static bool same(const struct hash_value *left, const struct hash_value *right)
{
    return memcmp(left, right, sizeof *left) == 0;
}

static void the_reference_log_has_the_known_roots(void **state)
{
    (void)state;
    /* the eight leaves and roots of the Certificate Transparency reference code */
    static const char *const leaves[] = {
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    };
    static const char *const roots[] = {
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    };
    struct merkle_edge edge = {0};
    struct hash_value root = merkle_root(&edge);
    assert_hex(SPAN_OF(root.bytes),
               "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    for (size_t i = 0; i < 8; i++) {
        uint8_t bytes[16];
        const struct span leaf = {bytes, strlen(leaves[i]) / 2};
        struct fault fault;
        from_hex(bytes, leaf.length, leaves[i]);
        struct hash_value hashed = merkle_leaf(leaf);
        assert_int_equal(merkle_append(&edge, &hashed, NULL, NULL, &fault), OK);
        root = merkle_root(&edge);
        assert_hex(SPAN_OF(root.bytes), roots[i]);
    }
}

static void roots_of_all_sizes_agree_with_the_plain_recursion(void **state)
{
    (void)state;
    for (size_t size = 0; size <= LEAVES; size++)
        assert_hex(SPAN_OF(tree.roots[size].bytes), tree_roots[size]);
}

static void a_leaf_in_parts_is_the_leaf_of_all_its_bytes(void **state)
{
    (void)state;
    struct hash_value whole = merkle_leaf(SPAN("saltentry"));
    struct hash_value parts = merkle_leaf_parts((struct span[]){SPAN("salt"), SPAN("entry")}, 2);
    assert_true(same(&whole, &parts));
}

static status check_inclusion(uint64_t index, uint64_t size, const struct hash_value *proof,
                              uint32_t count, const struct hash_value *leaf,
                              const struct hash_value *root)
{
    struct fault fault;
    return merkle_check_inclusion(leaf, index, size, proof, count, root, &fault);
}

/* Every part of a proof that holds, altered. */
static void refuse_altered_inclusion(uint64_t index, uint64_t size, struct hash_value *proof,
                                     uint32_t count)
{
    struct hash_value leaf = tree.leaves[index], root = tree.roots[size];
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *byte = &proof[i].bytes[(index + i) % HASH_BYTES];
        *byte ^= 1;
        assert_int_equal(check_inclusion(index, size, proof, count, &leaf, &root), CORRUPT);
        *byte ^= 1;
    }
    leaf.bytes[31] ^= 0x80;
    assert_int_equal(check_inclusion(index, size, proof, count, &leaf, &root), CORRUPT);
    leaf = tree.leaves[index];
    root.bytes[0] ^= 1;
    assert_int_equal(check_inclusion(index, size, proof, count, &leaf, &root), CORRUPT);
    root = tree.roots[size];
    proof[count] = root;
    assert_int_equal(check_inclusion(index, size, proof, count + 1, &leaf, &root), CORRUPT);
    if (count > 0) {
        assert_int_equal(check_inclusion(index, size, proof, count - 1, &leaf, &root), CORRUPT);
        assert_int_equal(check_inclusion(index, size, proof + 1, count - 1, &leaf, &root), CORRUPT);
    }
    for (uint64_t other = 0; other <= size + 1; other += size > 40 ? 7 : 1)
        if (other != index)
            assert_int_equal(check_inclusion(other, size, proof, count, &leaf, &root), CORRUPT);
}

static void every_inclusion_proof_holds_and_no_altered_one_does(void **state)
{
    (void)state;
    for (uint64_t size = 1; size <= LEAVES; size++)
        for (uint64_t index = 0; index < size; index++) {
            struct hash_value proof[CONSISTENCY_PROOF_MAX];
            uint32_t count;
            struct fault fault;
            assert_int_equal(merkle_inclusion(proof, &count, index, size, read_node, &size,
                                              &fault), OK);
            assert_int_equal(check_inclusion(index, size, proof, count, &tree.leaves[index],
                                             &tree.roots[size]), OK);
            refuse_altered_inclusion(index, size, proof, count);
        }
}

static status check_consistency(uint64_t from, uint64_t to, const struct hash_value *proof,
                                uint32_t count, const struct hash_value *from_root,
                                const struct hash_value *to_root)
{
    struct fault fault;
    return merkle_check_consistency(from, to, proof, count, from_root, to_root, &fault);
}

static void refuse_altered_consistency(uint64_t from, uint64_t to, struct hash_value *proof,
                                       uint32_t count)
{
    struct hash_value old = tree.roots[from], new = tree.roots[to];
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *byte = &proof[i].bytes[(from + i) % HASH_BYTES];
        *byte ^= 1;
        assert_int_equal(check_consistency(from, to, proof, count, &old, &new), CORRUPT);
        *byte ^= 1;
    }
    old.bytes[31] ^= 0x80;
    assert_int_equal(check_consistency(from, to, proof, count, &old, &new), CORRUPT);
    old = tree.roots[from];
    new.bytes[0] ^= 1;
    assert_int_equal(check_consistency(from, to, proof, count, &old, &new), CORRUPT);
    new = tree.roots[to];
    proof[count] = new;
    assert_int_equal(check_consistency(from, to, proof, count + 1, &old, &new), CORRUPT);
    if (count > 0) {
        assert_int_equal(check_consistency(from, to, proof, count - 1, &old, &new), CORRUPT);
        assert_int_equal(check_consistency(from, to, proof + 1, count - 1, &old, &new), CORRUPT);
        assert_int_equal(check_consistency(from, to, proof, count, &new, &old), CORRUPT);
    }
    if (from != to)
        assert_int_equal(check_consistency(to, from, proof, count, &new, &old), CORRUPT);
}

static void every_consistency_proof_holds_and_no_altered_one_does(void **state)
{
    (void)state;
    for (uint64_t to = 1; to <= LEAVES; to++)
        for (uint64_t from = 1; from <= to; from++) {
            struct hash_value proof[CONSISTENCY_PROOF_MAX];
            uint32_t count;
            struct fault fault;
            assert_int_equal(merkle_consistency(proof, &count, from, to, read_node, &to, &fault),
                             OK);
            assert_int_equal(check_consistency(from, to, proof, count, &tree.roots[from],
                                               &tree.roots[to]), OK);
            refuse_altered_consistency(from, to, proof, count);
        }
}

static void a_rewritten_history_has_no_proof(void **state)
{
    (void)state;
    struct merkle_edge edge = {0};
    struct hash_value rewritten = tree.leaves[3];
    struct fault fault;
    rewritten.bytes[0] ^= 1;
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(merkle_append(&edge, i == 3 ? &rewritten : &tree.leaves[i], NULL, NULL,
                                       &fault), OK);
    struct hash_value root = merkle_root(&edge), proof[CONSISTENCY_PROOF_MAX];
    uint32_t count;
    uint64_t to = 100;
    assert_int_equal(merkle_consistency(proof, &count, 50, to, read_node, &to, &fault), OK);
    assert_int_equal(check_consistency(50, 100, proof, count, &tree.roots[50], &root), CORRUPT);
}

static void from_nothing_needs_an_empty_proof(void **state)
{
    (void)state;
    assert_int_equal(check_consistency(0, 5, NULL, 0, &tree.roots[0], &tree.roots[5]), OK);
    assert_int_equal(check_consistency(0, 5, tree.roots, 1, &tree.roots[0], &tree.roots[5]),
                     CORRUPT);
    assert_int_equal(check_consistency(0, 0, NULL, 0, &tree.roots[0], &tree.roots[0]), OK);
    assert_int_equal(check_consistency(0, 0, NULL, 0, &tree.roots[0], &tree.roots[5]), CORRUPT);
}

static void proofs_outside_the_tree_are_refused(void **state)
{
    (void)state;
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    uint32_t count = 77;
    uint64_t size = 5;
    struct fault fault;
    assert_int_equal(merkle_inclusion(proof, &count, 5, 5, read_node, &size, &fault), BAD_FIELD);
    assert_int_equal(merkle_inclusion(proof, &count, 0, 0, read_node, &size, &fault), BAD_FIELD);
    assert_int_equal(merkle_consistency(proof, &count, 0, 5, read_node, &size, &fault), BAD_FIELD);
    assert_int_equal(merkle_consistency(proof, &count, 6, 5, read_node, &size, &fault), BAD_FIELD);
    assert_int_equal(count, 77);
}

static void a_missing_node_is_passed_on_and_the_result_untouched(void **state)
{
    (void)state;
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    uint32_t count = 77;
    uint64_t stored = 4;
    struct fault fault;
    assert_int_equal(merkle_inclusion(proof, &count, 0, 8, read_node, &stored, &fault), NOT_FOUND);
    assert_int_equal(merkle_consistency(proof, &count, 3, 8, read_node, &stored, &fault),
                     NOT_FOUND);
    assert_int_equal(count, 77);
}

/* A node for every place, so that trees of any size can be walked. */
static status made_up_node(struct hash_value *ret, void *context, uint32_t level, uint64_t index,
                           struct fault *fault)
{
    (void)context, (void)fault;
    *ret = (struct hash_value){.bytes = {(uint8_t)level, (uint8_t)index}};
    return OK;
}

static void the_largest_trees_stay_within_a_proof(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {UINT64_MAX, UINT64_C(1) << 63, (UINT64_C(1) << 63) + 1};
    struct hash_value proof[CONSISTENCY_PROOF_MAX], leaf = {0}, root = {0};
    uint32_t count;
    struct fault fault;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(merkle_inclusion(proof, &count, sizes[i] - 1, sizes[i], made_up_node,
                                          NULL, &fault), OK);
        assert_in_range(count, 1, 65);
        assert_int_equal(check_inclusion(sizes[i] - 1, sizes[i], proof, count, &leaf, &root),
                         CORRUPT);
        assert_int_equal(merkle_consistency(proof, &count, sizes[i] - 1, sizes[i], made_up_node,
                                            NULL, &fault), OK);
        assert_in_range(count, 1, 65);
        assert_int_equal(check_consistency(sizes[i] - 1, sizes[i], proof, count, &leaf, &root),
                         CORRUPT);
    }
}

static status refuse_level_two(void *context, uint32_t level, uint64_t index,
                               const struct hash_value *node, struct fault *fault)
{
    (void)context, (void)index, (void)node;
    return level == 2 ? FAIL(OUT_OF_SPACE, fault, "full") : OK;
}

static void an_append_that_fails_leaves_the_edge_as_it_was(void **state)
{
    (void)state;
    struct merkle_edge edge = {0}, before;
    struct fault fault;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(merkle_append(&edge, &tree.leaves[i], refuse_level_two, NULL, &fault), OK);
    before = edge;
    assert_int_equal(merkle_append(&edge, &tree.leaves[3], refuse_level_two, NULL, &fault),
                     OUT_OF_SPACE);
    assert_memory_equal(&edge, &before, sizeof edge);
    edge.count--;
    assert_int_equal(merkle_append(&edge, &tree.leaves[3], NULL, NULL, &fault), CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reference_log_has_the_known_roots),
        cmocka_unit_test(roots_of_all_sizes_agree_with_the_plain_recursion),
        cmocka_unit_test(a_leaf_in_parts_is_the_leaf_of_all_its_bytes),
        cmocka_unit_test(every_inclusion_proof_holds_and_no_altered_one_does),
        cmocka_unit_test(every_consistency_proof_holds_and_no_altered_one_does),
        cmocka_unit_test(a_rewritten_history_has_no_proof),
        cmocka_unit_test(from_nothing_needs_an_empty_proof),
        cmocka_unit_test(proofs_outside_the_tree_are_refused),
        cmocka_unit_test(a_missing_node_is_passed_on_and_the_result_untouched),
        cmocka_unit_test(the_largest_trees_stay_within_a_proof),
        cmocka_unit_test(an_append_that_fails_leaves_the_edge_as_it_was),
    };
    return cmocka_run_group_tests(tests, grow, NULL);
}
