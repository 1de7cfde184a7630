/* stream.h: one connection of the vsock device, from the guest that dials: bytes both ways. */
#pragma once

#include "ring.h"

enum { STREAM_ROOM = 256 * 1024, STREAM_PIECE_MAX = 48 * 1024 };

/* Brings the device up and dials that port of the host. False: refused. */
bool stream_dial(const struct device *device, uint32_t port);

/* Bytes that have come; waits for size of them. False: the host has closed, or time is over. */
bool stream_read(void *to, size_t size);
uint32_t stream_held(void); /* how many can be read without waiting */

/* One packet of head and body, as soon as the host has room for it. */
bool stream_write(const void *head, size_t head_size, const void *body, size_t body_size);
