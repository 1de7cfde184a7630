/* flat.h: guests of a few instructions, as a kernel that the monitor's own loader takes. */
#pragma once

#include "vmm/machine.h"

#include <stddef.h>

enum { FLAT_OUTS_MAX = 32, FLAT_PORT = 0x3F0 };

struct flat {
    struct loop *loop;
    struct machine *machine;
    struct loop_timer deadline;
    bool ended, late;
    enum sandbox_end end;
    char detail[200];
    _Atomic uint32_t outs; /* words that the guest wrote to FLAT_PORT: read by another thread */
    uint32_t out[FLAT_OUTS_MAX];
};

/* An ELF file in memory: code lies at GUEST_LOADED and is entered there by PVH. */
int flat_kernel(const uint8_t *code, size_t length);
/* False where this machine has no /dev/kvm. */
bool flat_has_kvm(void);
/* Opened and built: one vCPU, 4 MiB. Then devices may be added, then flat_start. */
void flat_make(struct flat *flat, uint32_t vcpus);
void flat_start(struct flat *flat, const uint8_t *code, size_t length);
/* Runs its loop until it has ended, or, when condition is not NULL, until that holds. */
void flat_run(struct flat *flat, bool (*condition)(struct flat *flat));
void flat_free(struct flat *flat);
