/* inmate_vmm.h: the inmate as a monitor: a machine without memory, and threads for its vCPUs. */
#pragma once

#include "inmate.h"

/* What a monitor does between jail_blank and the guest's first instruction. kvm: /dev/kvm, or
 * /dev/null where there is none: then ioctls that are let through fail with ENOTTY. */
MUST_CHECK status inmate_vmm_close(uint32_t *ret_abi, enum inmate_closing how, int kvm,
                                   struct fault *fault);

int inmate_vmm_attempt(enum inmate_attempt attempt); /* 0 or errno; ENOSYS: not known */
/* Any attempt, by the thread of the first vCPU. */
int inmate_vmm_attempt_by_vcpu(enum inmate_attempt attempt);
