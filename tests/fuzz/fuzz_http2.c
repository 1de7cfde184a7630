/* Whatever a client of HTTP/2 sends behind its preface: the gateway stays, its cell is never told
 * what it would have to take for a lie, and nothing is kept when the client has gone. A token waits
 * in the table of HPACK (62: authorization, 63: :authority, 64: :path), so that requests reach the
 * cell.
 *
 * The first byte says how the rest is cut into pieces; the cell answers between them. */
#include "fuzz.h"

#include "../unit/gateway/client2.h"

#include "gateway/state.h"

#include <sys/socket.h>
#include <unistd.h>

static struct house *house;
static int cell = -1;
static bool reached; /* by one request at least */

static void start(void)
{
    void *state;
    struct relayed relayed;
    CHECK(house_setup(&state) == 0);
    house = state;
    int client = house_dial(house);
    cell = house_relayed(house, client, &relayed);
    cell_answer(cell, relayed.id, 200, "{}");
    house_expect(house, client, 200, NULL);
    close(client);
    house_turn(house);
}

/* An honest one: it answers what is complete, once, in pieces of which some are late. */
static void play_cell(void)
{
    struct ipc_message message;
    struct fault fault;
    status came;
    while ((came = ipc_receive(&message, cell, house->storage, &fault)) == OK) {
        uint8_t flags = message.body.length ? message.body.data[0] : 0;
        reached = true;
        if (message.type == MESSAGE_RELAY_CANCEL)
            continue;
        CHECK(message.type == MESSAGE_RELAY_REQUEST || message.type == MESSAGE_RELAY_BODY);
        if (!(flags & FLAG_END))
            continue;
        cell_respond(cell, message.id, 0, 200, SPAN("a/b"), (struct span){0}, 4, SPAN("ab"));
        cell_more(cell, message.id, FLAG_END, SPAN("cd"));
    }
    CHECK(came == AGAIN); /* the gateway has not ended it */
}

/* By a reset: no port waits for what may still be under way. */
static void hang_up(int client)
{
    const struct linger none = {.l_onoff = 1};
    CHECK(!setsockopt(client, SOL_SOCKET, SO_LINGER, &none, sizeof none));
    close(client);
    house_turn(house);
}

static void drop_answers(int client)
{
    uint8_t bytes[4096];
    while (recv(client, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
}

static void remember(struct buffer *out, const char *name, const char *value)
{
    size_t at = out->length;
    client2_put_field(out, name, value);
    out->data[at] = 0x40; /* the same, and it enters the table */
}

static void greet(int client)
{
    struct buffer block = buffer_of(KIB(8)), out = buffer_of(KIB(16));
    char bearer[TOKEN_MAX];
    snprintf(bearer, sizeof bearer, "Bearer %s", (const char *)house->token.data);
    buffer_put(&block, SPAN("\x82\x86")); /* GET, http */
    remember(&block, ":path", "/v1/memories");
    remember(&block, ":authority", "x");
    remember(&block, "authorization", bearer);
    buffer_put(&out, SPAN("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    buffer_put(&out, SPAN("\0\0\0\4\0\0\0\0\0" "\0\0\0\4\1\0\0\0\0")); /* SETTINGS, and ACK */
    buffer_put_u8(&out, 0);
    buffer_put_u16(&out, (uint16_t)block.length);
    buffer_put(&out, SPAN("\1\5\0\0\0\1")); /* HEADERS, whole, of stream 1 */
    buffer_put(&out, buffer_span(&block));
    house_write(house, client, buffer_span(&out));
    buffer_free(&block);
    buffer_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    status why;
    if (!house)
        start();
    if (length == 0)
        return 0;
    struct span left = {bytes + 1, length - 1};
    size_t piece = bytes[0] % 16 ? (size_t)(bytes[0] % 16) * 16 : left.length;
    int client = house_dial(house);
    greet(client);
    while (left.length) {
        size_t now = piece < left.length ? piece : left.length;
        house_write(house, client, (struct span){left.data, now});
        left = (struct span){left.data + now, left.length - now};
        if (bytes[0] & 0x10)
            play_cell();
        if (bytes[0] & 0x20)
            drop_answers(client);
        if (bytes[0] & 0x40)
            house_turn(house);
    }
    play_cell();
    house_turn(house);
    for (int patience = 400; !reached && patience > 0; patience--) { /* late, on a busy machine */
        usleep(1000);
        house_turn(house);
        play_cell();
    }
    if (bytes[0] & 0x80)
        drop_answers(client);
    hang_up(client);
    play_cell();
    house_settle(house);
    CHECK(reached); /* the first stream of each does */
    CHECK(!house_ended(house, &why));
    CHECK(house->gateway->memory == 0);
    CHECK(house->gateway->idle.count + house->gateway->busy.count == 0);
    return 0;
}
