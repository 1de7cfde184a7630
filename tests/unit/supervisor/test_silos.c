#define _GNU_SOURCE
#include "supervisor/silos.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const uint8_t id[TENANT_ID_BYTES] = {0xab, 1};
static const char name[] = "ab010000000000000000000000000000";

struct place {
    char path[64];
    struct silos silos;
};

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info, (void)type, (void)walk;
    return remove(path);
}

static int make_place(void **state)
{
    static struct place place;
    struct fault fault;
    place = (struct place){.path = "/tmp/bulkhead-silos-XXXXXX"};
    *state = &place;
    return mkdtemp(place.path)
        && silos_open(&place.silos, place.path, geteuid() != 0, &fault) == OK ? 0 : -1;
}

static int remove_place(void **state)
{
    struct place *place = *state;
    close(place->silos.data);
    close(place->silos.run);
    close(place->silos.silos);
    close(place->silos.erased);
    return nftw(place->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static status keys_at(struct place *place, const char *path, struct fault *fault)
{
    int keys;
    char whole[256];
    snprintf(whole, sizeof whole, "%s/%s", place->path, path);
    assert_int_equal(silos_service(&keys, whole, geteuid(), geteuid() != 0, fault), OK);
    status apart = silos_keep_apart(&place->silos, keys, fault);
    close(keys);
    return apart;
}

static void keys_inside_the_data_are_found_under_any_name(void **state)
{
    struct place *place = *state;
    struct fault fault;
    char name_of_data[64], apart[96], target[80];
    snprintf(name_of_data, sizeof name_of_data, "%s", strrchr(place->path, '/') + 1);
    snprintf(apart, sizeof apart, "../%s.keys", name_of_data);
    assert_int_equal(keys_at(place, "keys", &fault), BAD_FIELD);
    assert_non_null(strstr(fault.detail, "--keys"));
    assert_int_equal(keys_at(place, "run/keys", &fault), BAD_FIELD);
    assert_int_equal(keys_at(place, ".", &fault), BAD_FIELD);
    assert_int_equal(keys_at(place, apart, &fault), OK);
    snprintf(target, sizeof target, "%s.link", place->path);
    assert_int_equal(symlink(place->path, target), 0);
    snprintf(apart, sizeof apart, "../%s.link/keys", name_of_data);
    assert_int_equal(keys_at(place, apart, &fault), BAD_FIELD);
    assert_int_equal(unlink(target), 0);
    snprintf(target, sizeof target, "%s.keys", place->path);
    assert_int_equal(rmdir(target), 0);
}

static void a_silo_is_made_for_its_uid_alone_and_again_is_no_error(void **state)
{
    struct place *place = *state;
    struct fault fault;
    struct stat info;
    uid_t uid = geteuid() == 0 ? 700001234 : geteuid();
    assert_int_equal(silos_make(&place->silos, id, uid, &fault), OK);
    assert_int_equal(silos_make(&place->silos, id, uid, &fault), OK);
    assert_int_equal(fstatat(place->silos.silos, name, &info, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(info.st_uid, uid);
    assert_int_equal(info.st_mode & 07777, 0700);
}

static void removing_counts_files_and_follows_no_link(void **state)
{
    struct place *place = *state;
    struct fault fault;
    struct silos_removed gone;
    assert_int_equal(silos_make(&place->silos, id, geteuid(), &fault), OK);
    int silo = openat(place->silos.silos, name, O_RDONLY | O_DIRECTORY);
    int outside = openat(place->silos.data, "outside", O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(outside, "stays", 5), 5);
    close(outside);
    assert_int_equal(mkdirat(silo, "tiles", 0700), 0);
    assert_int_equal(symlinkat("../../outside", silo, "link"), 0);
    assert_int_equal(symlinkat("../..", silo, "up"), 0);
    int file = openat(silo, "tiles/one", O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(file, "1234567", 7), 7);
    close(file);
    close(silo);
    assert_int_equal(silos_remove(&gone, &place->silos, id, &fault), OK);
    assert_int_equal(gone.files, 3);
    assert_true(gone.bytes >= 7);
    assert_int_not_equal(faccessat(place->silos.silos, name, F_OK, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(faccessat(place->silos.data, "outside", F_OK, 0), 0);
    assert_int_equal(silos_remove(&gone, &place->silos, id, &fault), OK);
    assert_int_equal(gone.files, 0);
}

static void a_silo_in_the_wrong_hands_is_not_handed_out(void **state)
{
    struct place *place = *state;
    struct fault fault;
    int mount;
    if (geteuid() != 0)
        skip();
    assert_int_equal(silos_make(&place->silos, id, 700001234, &fault), OK);
    assert_int_equal(silos_mount(&mount, &place->silos, id, 700001235, &fault), CORRUPT);
    assert_int_equal(fchmodat(place->silos.silos, name, 0755, 0), 0);
    assert_int_equal(silos_mount(&mount, &place->silos, id, 700001234, &fault), CORRUPT);
    assert_int_equal(fchmodat(place->silos.silos, name, 0700, 0), 0);
    assert_int_equal(silos_mount(&mount, &place->silos, id, 700001234, &fault), OK);
    close(mount);
}

static void a_link_in_place_of_a_silo_is_refused(void **state)
{
    struct place *place = *state;
    struct fault fault;
    int mount;
    assert_int_equal(symlinkat("/etc", place->silos.silos, name), 0);
    assert_int_equal(silos_mount(&mount, &place->silos, id, 0, &fault), UNAVAILABLE);
    assert_int_not_equal(silos_make(&place->silos, id, 0, &fault), OK);
}

static void one_data_directory_has_one_supervisor(void **state)
{
    struct place *place = *state;
    struct silos second;
    struct fault fault;
    assert_int_equal(silos_open(&second, place->path, true, &fault), CONFLICT);
    assert_non_null(strstr(fault.detail, "another bulkhead"));
}

/* A silo's directory with one file in it that says which it is. */
static void make_one(struct place *place, const char *suffix, const char *what)
{
    char path[64];
    snprintf(path, sizeof path, "%s%s", name, suffix);
    assert_int_equal(mkdirat(place->silos.silos, path, 0700), 0);
    int directory = openat(place->silos.silos, path, O_RDONLY | O_DIRECTORY);
    int file = openat(directory, what, O_WRONLY | O_CREAT, 0600);
    assert_true(file >= 0);
    close(file);
    close(directory);
}

static bool has_one(struct place *place, const char *suffix, const char *what)
{
    char path[80];
    snprintf(path, sizeof path, "%s%s/%s", name, suffix, what);
    return faccessat(place->silos.silos, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool stands(struct place *place, const char *suffix)
{
    return has_one(place, suffix, ".");
}

/* In each moment of a replacement the process may have died: it ends with the new one alone. */
static void a_replacement_cut_at_any_moment_is_finished(void **state)
{
    static const char *const moments[][3] = { /* what stands at NAME, NAME.new, NAME.old */
        {"before", "after", NULL}, {"before", "after", "earlier"}, {NULL, "after", "before"},
        {"after", NULL, "before"}, {"after", NULL, NULL}, {NULL, "after", NULL},
    };
    static const char *const suffixes[] = {"", ".new", ".old"};
    struct place *place = *state;
    struct fault fault;
    struct silos_removed gone;
    for (size_t i = 0; i < sizeof moments / sizeof moments[0]; i++) {
        for (int at = 0; at < 3; at++)
            if (moments[i][at])
                make_one(place, suffixes[at], moments[i][at]);
        for (int again = 0; again < 2; again++) {
            assert_int_equal(silos_replace(&place->silos, id, &fault), OK);
            assert_true(has_one(place, "", "after"));
            assert_false(has_one(place, "", "before"));
            assert_false(stands(place, ".new") || stands(place, ".old"));
        }
        assert_int_equal(silos_remove(&gone, &place->silos, id, &fault), OK);
    }
}

static void what_is_discarded_leaves_the_one_in_place(void **state)
{
    struct place *place = *state;
    struct fault fault;
    make_one(place, "", "before");
    make_one(place, ".new", "after");
    for (int again = 0; again < 2; again++) {
        assert_int_equal(silos_discard(&place->silos, id, &fault), OK);
        assert_true(has_one(place, "", "before"));
        assert_false(stands(place, ".new"));
    }
    assert_int_equal(silos_replace(&place->silos, id, &fault), OK); /* by nothing */
    assert_true(has_one(place, "", "before"));
}

static void a_removal_takes_what_a_restore_left_beside(void **state)
{
    struct place *place = *state;
    struct fault fault;
    struct silos_removed gone;
    make_one(place, "", "before");
    make_one(place, ".new", "after");
    make_one(place, ".old", "earlier");
    assert_int_equal(silos_remove(&gone, &place->silos, id, &fault), OK);
    assert_int_equal(gone.files, 3);
    assert_false(stands(place, "") || stands(place, ".new") || stands(place, ".old"));
}

static bool erased_is_empty(const struct place *place)
{
    char path[96];
    snprintf(path, sizeof path, "%s/erased", place->path);
    return rmdir(path) == 0 && mkdir(path, 0700) == 0;
}

static void a_large_silo_is_set_aside_and_goes_step_by_step(void **state)
{
    struct place *place = *state;
    struct fault fault;
    struct silos_removed gone;
    bool more = true;
    uint32_t steps = 0;
    assert_int_equal(silos_make(&place->silos, id, geteuid(), &fault), OK);
    int silo = openat(place->silos.silos, name, O_RDONLY | O_DIRECTORY);
    assert_int_equal(mkdirat(silo, "objects", 0700), 0);
    for (int i = 0; i < 300; i++) {
        char file[32];
        snprintf(file, sizeof file, "objects/%d", i);
        int fd = openat(silo, file, O_WRONLY | O_CREAT, 0600);
        assert_int_equal(posix_fallocate(fd, 0, i == 7 ? 100 * 1024 * 1024 : 10), 0);
        close(fd);
    }
    close(silo);
    assert_int_equal(silos_remove(&gone, &place->silos, id, &fault), OK);
    assert_true(gone.later);
    assert_int_equal(gone.files, 300);
    assert_int_equal(gone.bytes, 100 * 1024 * 1024 + 299 * 10);
    assert_int_not_equal(faccessat(place->silos.silos, name, F_OK, AT_SYMLINK_NOFOLLOW), 0);
    assert_false(erased_is_empty(place));
    for (; more && steps < 100; steps++)
        assert_int_equal(silos_clear(&more, &place->silos, &fault), OK);
    assert_false(more);
    assert_true(steps > 5);
    close(place->silos.erased);
    assert_true(erased_is_empty(place));
    place->silos.erased = open(place->path, O_RDONLY | O_DIRECTORY);
    assert_int_equal(silos_remove(&gone, &place->silos, id, &fault), OK);
    assert_int_equal(gone.files, 0);
}

/* A taken-over cell may nest folders and make files of holes: its own end is not held up. */
static void what_a_cell_nested_or_blew_up_is_cleared_too(void **state)
{
    struct place *place = *state;
    struct fault fault;
    struct silos_removed gone;
    bool more = true;
    assert_int_equal(silos_make(&place->silos, id, geteuid(), &fault), OK);
    int at = openat(place->silos.silos, name, O_RDONLY | O_DIRECTORY);
    int holes = openat(at, "holes", O_WRONLY | O_CREAT, 0600);
    assert_int_equal(ftruncate(holes, (off_t)1 << 36), 0);
    close(holes);
    for (int depth = 0; depth < 100; depth++) {
        assert_int_equal(mkdirat(at, "deep", 0700), 0);
        int next = openat(at, "deep", O_RDONLY | O_DIRECTORY);
        close(at);
        at = next;
    }
    close(at);
    assert_int_equal(silos_remove(&gone, &place->silos, id, &fault), OK);
    assert_true(gone.later);
    for (int steps = 0; more && steps < 200; steps++)
        assert_int_equal(silos_clear(&more, &place->silos, &fault), OK);
    assert_false(more);
    assert_true(erased_is_empty(place));
}

static void a_link_in_place_of_a_restored_silo_is_refused(void **state)
{
    struct place *place = *state;
    struct fault fault;
    char path[64];
    int mount;
    snprintf(path, sizeof path, "%s.new", name);
    assert_int_equal(symlinkat("/etc", place->silos.silos, path), 0);
    assert_int_equal(silos_mount_restored(&mount, &place->silos, id, 0, &fault), UNAVAILABLE);
    assert_int_not_equal(silos_make_restored(&place->silos, id, 0, &fault), OK);
    assert_int_equal(silos_discard(&place->silos, id, &fault), OK);
    assert_int_equal(access("/etc/passwd", F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_silo_is_made_for_its_uid_alone_and_again_is_no_error,
                                        make_place, remove_place),
        cmocka_unit_test_setup_teardown(removing_counts_files_and_follows_no_link, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(a_silo_in_the_wrong_hands_is_not_handed_out, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(a_link_in_place_of_a_silo_is_refused, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(keys_inside_the_data_are_found_under_any_name, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(a_replacement_cut_at_any_moment_is_finished, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(what_is_discarded_leaves_the_one_in_place, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(a_removal_takes_what_a_restore_left_beside, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(a_large_silo_is_set_aside_and_goes_step_by_step, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(what_a_cell_nested_or_blew_up_is_cleared_too, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(a_link_in_place_of_a_restored_silo_is_refused, make_place,
                                        remove_place),
        cmocka_unit_test_setup_teardown(one_data_directory_has_one_supervisor, make_place,
                                        remove_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
