/* attack.h: what the files of the hostile guest share. */
#pragma once

#include "ring.h"

enum { KIND_NET = 1, KIND_BLOCK = 2, KIND_RNG = 4, KIND_BALLOON = 5, KIND_VSOCK = 19 };

extern struct device at_hand; /* that is attacked now, also by the second CPU */
extern bool has_second;       /* CPU */

void begin(const char *name);
void fail(const char *why);
/* How often a random attack is made. */
uint64_t rounds(void);
/* Whether every register and port is tried in every way, which takes many exits. */
bool thorough(void);

uint64_t bad_address(void); /* not the guest's, or just not, or that of a ring */
uint32_t bad_length(void);  /* that wraps, or is none */

void attack_edges(void);       /* edges.c: of one device, what is almost right */
void attack_rings(void);       /* rings.c: of one device, those that need no request */
void attack_connections(void); /* connections.c: of the vsock device */
void attack_platform(void);    /* platform.c: all that is no device of virtio's */
void attack_end(uint64_t way); /* endings.c: returns when there is no such way */
