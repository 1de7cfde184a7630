/* node.h: a real control and a real kms as children of the test, which plays the supervisor between
 * them, forwards what they say to each other, and can end control at any message. */
#pragma once

#include "base/buffer.h"
#include "wire/messages.h"
#include "wire/sandbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/types.h>

#include <cmocka.h>

enum { ASKED_MAX = 32 };

/* How the supervisor that the test plays treats sandboxes, and what it was asked. */
struct sandbox_script {
    status refuse; /* SANDBOX_START, with why; OK: it runs */
    const char *why;
    uint8_t tier;
    bool hold;           /* SANDBOX_START is answered by node_answer_start */
    uint32_t held;       /* that is not answered yet */
    uint64_t next_id;    /* of the next one that runs */
    struct sandbox_spec spec; /* of the newest SANDBOX_START */
    uint8_t tenant[TENANT_ID_BYTES];
    bool had_socket, had_console;
    uint32_t asked[ASKED_MAX]; /* types of messages about sandboxes and cells, in order */
    uint32_t asked_count;
};

enum { LINKS_MAX = 2 }; /* forwarded: control's standing channel to the kms, an operator's */

struct node {
    char path[64];
    int directory, keys, control_directory, silos;
    pid_t kms, control;
    int kms_channel, control_channel;
    struct link {
        int control, kms; /* our ends; -1: none */
    } links[LINKS_MAX];
    int second_fd; /* 0: none */
    int client; /* the operator's end of an admin connection */
    uint8_t keys_public[64];
    bool ready;
    uint32_t messages; /* seen since node_arm */
    uint32_t die_at;   /* control is ended when that message passes; 0: never */
    bool die_before;   /* before it is passed on, else straight after */
    bool died;
    struct sandbox_script sandboxes;
    uint32_t refuse; /* the type of message that the supervisor answers with INTERNAL; 0: none */
};

void node_make(struct node *node);
void node_remove(struct node *node);
void node_start_control(struct node *node); /* until READY and quiet */
void node_stop_control(struct node *node);  /* kills it */

/* One verb by a new operator's connection. False when control died before it answered. detail and
 * json are copied. */
bool node_call(struct node *node, const char *verb, const char *arguments, status *ret_code,
               char detail[256], struct buffer *ret_json);

/* The same with a descriptor, which stays the caller's. */
bool node_call_fd(struct node *node, const char *verb, const char *arguments, int fd,
                  status *ret_code, char detail[256], struct buffer *ret_json);
/* The next call brings this one, too. */
void node_second_fd(struct node *node, int fd);
/* In two halves: node_finish waits for the answer of the newest node_begin. */
void node_begin(struct node *node, const char *verb, const char *arguments, int fd);
bool node_finish(struct node *node, status *ret_code, char detail[256], struct buffer *ret_json);
void node_settle(struct node *node); /* passes on what comes until nothing does */
void node_answer_start(struct node *node);
void node_sandbox_gone(struct node *node, uint64_t id, enum sandbox_end end, const char *detail);

/* The end of control's only gateway; the caller closes it. */
int node_open_gateway(struct node *node);

bool node_has_silo(const struct node *node); /* is there any directory under silos? */
