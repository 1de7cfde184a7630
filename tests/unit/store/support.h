/* support.h: what the tests of the store share: the keys, the options, how to start. */
#pragma once

#include "crypt/crypt.h"
#include "sim.h"
#include "store/statement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t silo_id[TENANT_ID_BYTES] = "a silo of sixtee";
static const uint8_t other_silo_id[TENANT_ID_BYTES] = "another silo of ";
static const struct store_key keys[] = {{.version = 1, .dek = "thirty-two bytes of data key ..."}};

static inline struct store_options options_over(struct sim *sim)
{
    return (struct store_options){.silo_fd = -1,
                                  .silo_id = silo_id,
                                  .keys = keys,
                                  .key_count = 1,
                                  .cache_kib = 64,
                                  .io = &sim->io};
}

static inline int start_store(void **state)
{
    (void)state;
    struct fault fault;
    return crypt_start(&fault) == OK && store_start(&fault) == OK ? 0 : -1;
}

#define assert_ok(expression)                                                    \
    do {                                                                         \
        struct fault *shown = &fault;                                            \
        status got_status = (expression);                                        \
        if (got_status != OK)                                                    \
            fail_msg("%s: %s: %s", #expression, status_code(got_status), shown->detail); \
    } while (0)
