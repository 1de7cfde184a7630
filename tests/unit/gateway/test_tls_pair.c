/* test_tls_pair.c: GATEWAY_TLS: what a gateway takes from the supervisor, and what it answers. */
#define _GNU_SOURCE
#include "gateway/gateway.h"
#include "tls_support.h"
#include "wire/messages.h"

#include <fcntl.h>
#include <sys/mman.h>

static struct pair pair, other;
static int ends[2]; /* the supervisor's, the gateway's */

static int begin(void **state)
{
    struct fault fault;
    if (start_tls(state) || ipc_pair(ends, &fault) != OK)
        return -1;
    make_pair(&pair, "P-256", "one.example", 30);
    make_pair(&other, "P-256", "two.example", 40);
    return 0;
}

static int end(void **state)
{
    (void)state;
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static int file_of(struct span content)
{
    int fd = memfd_create("pem", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content.data, content.length), content.length);
    return fd; /* its offset stands at the end: gateways share it */
}

static uint8_t body_storage[512];

static struct ipc_message message_of(uint16_t keys, size_t key_bytes, uint32_t id)
{
    struct buffer body = buffer_over(body_storage, sizeof body_storage);
    buffer_put_u16(&body, keys);
    for (size_t i = 0; i < key_bytes; i++)
        buffer_put_u8(&body, (uint8_t)(i + 1));
    return (struct ipc_message){.type = MESSAGE_GATEWAY_TLS, .id = id, .body = buffer_span(&body)};
}

static void add(struct ipc_message *message, struct span content)
{
    message->fds[message->fd_count++] = file_of(content);
}

static status take(struct tls_server **server, struct ipc_message *message)
{
    struct fault fault;
    status result = gateway_tls_take(server, ends[1], message, &fault);
    ipc_message_close(message);
    return result;
}

/* The status of the answer that waits; AGAIN: none does. */
static status answer(uint32_t id, struct cursor *result, char *detail)
{
    static uint8_t packet[IPC_PACKET_MAX];
    struct ipc_message message;
    struct fault fault = {0};
    status came = ipc_receive(&message, ends[0], packet, &fault);
    if (came != OK)
        return came;
    assert_int_equal(message.type, MESSAGE_REPLY);
    assert_int_equal(message.id, id);
    status code = reply_get_head(result, &message, &fault);
    memcpy(detail, fault.detail, sizeof fault.detail);
    return code;
}

static void a_pair_that_fits_is_taken_and_told(void **state)
{
    (void)state;
    struct tls_server *server = NULL;
    struct cursor result;
    struct fault fault;
    uint8_t told[HASH_BYTES], first[HASH_BYTES];
    uint64_t expires;
    char detail[200];
    for (uint32_t id = 1; id <= 2; id++) {
        const struct pair *now = id == 1 ? &pair : &other;
        struct ipc_message message = message_of(2, 160, id);
        add(&message, pem_span(&now->certificate));
        add(&message, pem_span(&now->key));
        assert_int_equal(take(&server, &message), OK);
        assert_int_equal(answer(id, &result, detail), OK);
        assert_int_equal(cursor_copy(told, &result, sizeof told, &fault), OK);
        assert_int_equal(cursor_u64(&expires, &result, &fault), OK);
        assert_int_equal(cursor_end(&result, &fault), OK);
        assert_int_equal((int64_t)expires, tls_server_expires(server));
        tls_server_fingerprint(first, server);
        assert_memory_equal(told, first, HASH_BYTES);
    }
    for (size_t i = 0; i < 162; i++)
        assert_int_equal(body_storage[i], 0); /* wiped */
    tls_server_free(server);
}

static void a_pair_that_does_not_fit_is_refused_and_the_old_one_stays(void **state)
{
    (void)state;
    static uint8_t big[TLS_PEM_MAX + 1];
    struct tls_server *server = NULL, *before;
    struct cursor result;
    char detail[200];
    const struct {
        struct span certificate, key;
        const char *words;
    } cases[] = {
        {pem_span(&pair.certificate), pem_span(&other.key), "key: it is not the key"},
        {pem_span(&pair.key), pem_span(&pair.key), "certificate: no certificate"},
        {pem_span(&pair.certificate), pem_span(&pair.certificate), "key: no private key"},
        {{0}, pem_span(&pair.key), "certificate: empty"},
        {pem_span(&pair.certificate), {0}, "key: empty"},
        {SPAN_OF(big), pem_span(&pair.key), "certificate: empty, or more than"},
        {pem_span(&pair.certificate), SPAN_OF(big), "key: empty, or more than"},
    };
    for (int round = 0; round < 2; round++) {
        before = server;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct ipc_message message = message_of(1, 80, 7);
            add(&message, cases[i].certificate);
            add(&message, cases[i].key);
            assert_int_equal(take(&server, &message), OK);
            assert_ptr_equal(server, before);
            assert_int_equal(answer(7, &result, detail), BAD_FIELD);
            assert_ptr_equal(strstr(detail, cases[i].words), detail);
        }
        struct ipc_message message = message_of(1, 80, 8);
        add(&message, pem_span(&pair.certificate));
        add(&message, pem_span(&pair.key));
        assert_int_equal(take(&server, &message), OK);
        assert_int_equal(answer(8, &result, detail), OK);
    }
    tls_server_free(server);
}

static void ticket_keys_alone_are_not_answered(void **state)
{
    (void)state;
    struct tls_server *server = NULL;
    struct cursor result;
    char detail[200];
    struct ipc_message message = message_of(1, 80, 0);
    assert_int_equal(take(&server, &message), OK);
    assert_null(server);
    assert_int_equal(answer(0, &result, detail), AGAIN);
    server = serve(&pair);
    message = message_of(2, 160, 0);
    assert_int_equal(take(&server, &message), OK);
    assert_int_equal(answer(0, &result, detail), AGAIN);
    tls_server_free(server);
}

static void what_is_no_such_message_is_refused(void **state)
{
    (void)state;
    static const struct {
        uint16_t keys;
        size_t bytes;
        uint32_t id, fds;
        status expected;
    } cases[] = {
        {0, 0, 0, 0, BAD_REQUEST},   {3, 240, 0, 0, BAD_REQUEST}, {1, 79, 0, 0, TRUNCATED},
        {1, 81, 0, 0, BAD_REQUEST},  {2, 80, 0, 0, TRUNCATED},    {1, 80, 1, 0, BAD_REQUEST},
        {1, 80, 0, 2, BAD_REQUEST},  {1, 80, 1, 1, BAD_REQUEST},  {1, 80, 1, 3, BAD_REQUEST},
    };
    struct tls_server *server = NULL;
    struct cursor result;
    char detail[200];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ipc_message message = message_of(cases[i].keys, cases[i].bytes, cases[i].id);
        for (uint32_t j = 0; j < cases[i].fds; j++)
            add(&message, pem_span(&pair.certificate));
        assert_int_equal(take(&server, &message), cases[i].expected);
        assert_null(server);
        assert_int_equal(answer(cases[i].id, &result, detail), AGAIN);
    }
    struct ipc_message message = message_of(1, 80, 0);
    message.type = MESSAGE_STOP;
    assert_int_equal(take(&server, &message), BAD_REQUEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pair_that_fits_is_taken_and_told),
        cmocka_unit_test(a_pair_that_does_not_fit_is_refused_and_the_old_one_stays),
        cmocka_unit_test(ticket_keys_alone_are_not_answered),
        cmocka_unit_test(what_is_no_such_message_is_refused),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
