/* state.h: all that a vCPU is at, to a snapshot and back. It must stand still (machine_hold). The
 * order of the calls is KVM's demand: the local APIC before the MSRs, or a timer that is armed is
 * lost; the TSC before its deadline; pending events last. */
#pragma once

#include "base/status.h"

#include <linux/kvm.h>
#include <stdint.h>

enum { VCPU_MSRS_MAX = 56 };

struct vcpu_msrs { /* what KVM_GET_MSRS takes */
    struct kvm_msrs head;
    struct kvm_msr_entry entries[VCPU_MSRS_MAX];
};

struct vcpu_state {
    struct kvm_mp_state running;
    struct kvm_regs registers;
    struct kvm_sregs special;
    struct kvm_xsave extended;
    struct kvm_xcrs extended_control;
    struct kvm_debugregs debug;
    struct kvm_lapic_state apic;
    struct kvm_vcpu_events events;
    struct vcpu_msrs msrs; /* those of our list that this host knows */
    uint32_t tsc_khz;
};

/* vcpu: its descriptor. INTERNAL naming the call that failed. */
MUST_CHECK status vcpu_state_save(struct vcpu_state *ret, int vcpu, struct fault *fault);
/* Into a vCPU that was made with the same CPUID, and has not run. */
MUST_CHECK status vcpu_state_load(int vcpu, const struct vcpu_state *state, struct fault *fault);
