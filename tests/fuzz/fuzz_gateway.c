/* A whole gateway and a client that may send anything, over HTTP/1.1 or HTTP/2. Nobody without a
 * token is answered with success, and whatever was sent, the connection is over when all clocks
 * have run down: nothing spins, nothing stays. The first byte of the input says which protocol
 * begins and where the bytes are cut, the rest is what the client sends. */
#define _GNU_SOURCE
#include "fuzz.h"

#include "house.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLOCKS_MS = 80000, CLOCKS = 4 }; /* longer than any, and as many as may follow each other */

/* The preface, SETTINGS, and the acknowledgement of ours. */
static const char http2_start[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                                  "\0\0\0\4\0\0\0\0\0"
                                  "\0\0\0\4\1\0\0\0\0";

/* What was answered so far; true once the connection is over. */
static bool read_all(struct buffer *ret, int client)
{
    for (;;) {
        uint8_t *room = buffer_reserve(ret, 4096);
        CHECK(room);
        ssize_t got = recv(client, room, 4096, MSG_DONTWAIT);
        if (got == 0)
            return true;
        if (got < 0)
            return errno != EAGAIN;
        buffer_advance(ret, (size_t)got);
    }
}

/* What control is asked is not answered: it waits, and is refused when its time has come. */
static void drop_questions(struct house *house)
{
    while (recv(house->control, house->storage, sizeof house->storage, MSG_DONTWAIT) > 0)
        ;
}

/* By a reset, so that no port waits for what may still be under way: there are only so many. */
static void hang_up(int client)
{
    const struct linger none = {.l_onoff = 1};
    CHECK(!setsockopt(client, SOL_SOCKET, SO_LINGER, &none, sizeof none));
    close(client);
}

/* HTTP/1.1 with a refusal, or HTTP/2, which begins with the gateway's SETTINGS. */
static void check_answer(struct span answer)
{
    if (answer.length == 0)
        return;
    CHECK(answer.length > 12);
    if (span_equal((struct span){answer.data, 9}, SPAN("HTTP/1.1 ")))
        CHECK(answer.data[9] == '4' || answer.data[9] == '5');
    else
        CHECK(answer.data[3] == 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct house *house;
    status why;
    if (size == 0)
        return 0;
    if (!house)
        CHECK(house_setup((void **)&house) == 0);
    bool over = false;
    size_t step = data[0] < 128 ? size : 1 + data[0] % 61;
    struct buffer answer = buffer_of(MIB(16));
    int client = house_dial(house);
    if (data[0] & 1)
        house_write(house, client, (struct span){(const uint8_t *)http2_start,
                                                 sizeof http2_start - 1});
    for (size_t at = 1; at < size; at += step)
        house_write(house, client, (struct span){data + at, size - at < step ? size - at : step});
    for (int i = 0; i < CLOCKS && !over; i++) {
        over = read_all(&answer, client);
        drop_questions(house);
        house_wait(house, CLOCKS_MS);
    }
    for (int patience = 400; !over && patience > 0; patience--) { /* late, on a busy machine */
        over = read_all(&answer, client);
        house_turn(house);
        if (!over)
            usleep(1000);
    }
    CHECK(over);
    check_answer(buffer_span(&answer));
    hang_up(client);
    CHECK(!house_ended(house, &why));
    buffer_free(&answer);
    return 0;
}
