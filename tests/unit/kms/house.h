/* house.h: a kms that serves without a jail, and all its peers in the hands of one test. */
#pragma once

#include "kms/serve.h"
#include "support.h"
#include "wire/ipc.h"
#include "wire/messages.h"

enum { BODY_BYTES = KIB(32) };

/* Of the test that runs; the kms's other ends are inside. */
extern int directory, supervisor, standing, admin;
extern struct loop *loop;
extern struct keystore *store;
extern struct kms *kms;
extern struct fault fault;
extern uint8_t platform_key[SIGN_PUBLIC_BYTES], issuer_key[SIGN_PUBLIC_BYTES];

extern struct buffer body;        /* of the message that is put together */
extern struct ipc_message answer; /* the last one received */
extern uint8_t packet[IPC_PACKET_MAX];

int set_up(void **state);
int tear_down(void **state);

struct buffer *new_body(void);
struct span bare_id(uint8_t n);
void turns(int count);
void send_message(int fd, uint32_t type, struct span bytes, const int *fds, uint32_t count);
bool is_closed(int fd); /* and nothing came before the end */

/* The status of the answer; result: what is behind its head. */
status answered(struct cursor *result, int fd, uint32_t type);
status ask(struct cursor *result, int fd, uint32_t type, struct span bytes);
status ask_id(struct cursor *result, int fd, uint32_t type, uint8_t n);

/* Hands one end of a new channel to the kms; ours comes back. */
int hand_over(uint32_t type, struct span bytes, status due);
int new_cell(uint8_t n);
int new_standing(void);
int new_admin(void);

struct opened {
    uint32_t count, version; /* the newest */
    uint8_t dek[KEY_BYTES], older[DEK_VERSIONS_MAX][KEY_BYTES];
    uint8_t wrapped[DEK_VERSIONS_MAX * WRAPPED_DEK_BYTES];
    size_t wrapped_length;
    struct anchor anchor;
    uint32_t restores;
    struct charter_head own, platform;
};

status open_key(struct opened *ret, int fd, struct span wrapped);
void create_key(uint8_t n);
struct anchor anchor_of(const struct opened *opened, uint64_t commits, uint64_t log_size);
void put_move(const struct anchor *anchor, uint64_t from); /* into the body, with its proof */
struct signed_charter charter_of(uint8_t n, uint64_t sequence, const char *document);
/* Of the answer: OK only with a signature of the platform key over exactly this charter. */
status sign(int fd, const struct signed_charter *charter);
void put_mint(uint8_t n, const char *user, const char *scope, uint32_t ttl_seconds);
void everybody_else_is_served(void);

/* For the end of main. */
int house_run(const struct CMUnitTest *tests, size_t count);

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define HOUSE_RUN(tests) house_run(tests, sizeof(tests) / sizeof *(tests))
