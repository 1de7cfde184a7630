/* node.h: a real control and a real kms as children of the test, which plays the supervisor between
 * them, forwards what they say to each other, and can end control at any message. */
#pragma once

#include "base/buffer.h"
#include "wire/messages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/types.h>

#include <cmocka.h>

enum { LINKS_MAX = 2 }; /* forwarded: control's standing channel to the kms, an operator's */

struct node {
    char path[64];
    int directory, keys, control_directory, silos;
    pid_t kms, control;
    int kms_channel, control_channel;
    struct link {
        int control, kms; /* our ends; -1: none */
    } links[LINKS_MAX];
    int client; /* the operator's end of an admin connection */
    uint8_t keys_public[64];
    bool ready;
    uint32_t messages; /* seen since node_arm */
    uint32_t die_at;   /* control is ended when that message passes; 0: never */
    bool die_before;   /* before it is passed on, else straight after */
    bool died;
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

/* The end of control's only gateway; the caller closes it. */
int node_open_gateway(struct node *node);

bool node_has_silo(const struct node *node); /* is there any directory under silos? */
