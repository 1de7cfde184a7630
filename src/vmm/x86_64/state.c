#include "vmm/x86_64/state.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

/* Never IA32_MCG_CTL: a guest could be killed by what it restores. The TSC stands before its
 * deadline. */
static const uint32_t saved[] = {
    0x10,                          /* TSC */
    0x3B,                          /* TSC_ADJUST */
    0x48,                          /* SPEC_CTRL */
    0x174, 0x175, 0x176,           /* SYSENTER_CS, _ESP, _EIP */
    0x1A0,                         /* MISC_ENABLE */
    0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207, /* variable MTRRs */
    0x208, 0x209, 0x20A, 0x20B, 0x20C, 0x20D, 0x20E, 0x20F,
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26A, 0x26B, 0x26C, /* fixed MTRRs */
    0x26D, 0x26E, 0x26F, 0x277, 0x2FF, /* PAT, MTRR_DEF_TYPE */
    0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, /* STAR, LSTAR, CSTAR, SYSCALL_MASK */
    0xC0000102, 0xC0000103,        /* KERNEL_GS_BASE, TSC_AUX */
    0xDA0,                         /* XSS */
    0x4B564D00, 0x4B564D01, 0x4B564D02, 0x4B564D03, 0x4B564D04, /* KVM: clocks, faults, steal */
    0x6E0,                         /* TSC_DEADLINE */
};

_Static_assert(sizeof saved / sizeof *saved <= VCPU_MSRS_MAX, "they fit");
_Static_assert(offsetof(struct vcpu_msrs, entries) == sizeof(struct kvm_msrs), "as KVM reads");

static status call(int vcpu, unsigned long request, const char *name, void *argument,
                   struct fault *fault)
{
    if (ioctl(vcpu, request, argument) >= 0)
        return OK;
    return FAIL(INTERNAL, fault, "vCPU: %s: %s", name, strerror(errno));
}

#define CALL(request, argument) TRY(call(vcpu, request, #request, (void *)(argument), fault))

/* One at a time: KVM stops at the first that it does not know. */
static void save_msrs(struct vcpu_msrs *ret, int vcpu)
{
    ret->head.nmsrs = 0;
    for (size_t i = 0; i < sizeof saved / sizeof *saved; i++) {
        struct vcpu_msrs one = {.head = {.nmsrs = 1}, .entries = {{.index = saved[i]}}};
        if (ioctl(vcpu, KVM_GET_MSRS, &one) == 1)
            ret->entries[ret->head.nmsrs++] = one.entries[0];
    }
}

status vcpu_state_save(struct vcpu_state *ret, int vcpu, struct fault *fault)
{
    CALL(KVM_GET_MP_STATE, &ret->running);
    CALL(KVM_GET_REGS, &ret->registers);
    CALL(KVM_GET_SREGS, &ret->special);
    CALL(KVM_GET_XSAVE, &ret->extended);
    CALL(KVM_GET_XCRS, &ret->extended_control);
    CALL(KVM_GET_DEBUGREGS, &ret->debug);
    CALL(KVM_GET_LAPIC, &ret->apic);
    int khz = ioctl(vcpu, KVM_GET_TSC_KHZ, 0);
    ret->tsc_khz = khz > 0 ? (uint32_t)khz : 0;
    save_msrs(&ret->msrs, vcpu);
    CALL(KVM_GET_VCPU_EVENTS, &ret->events);
    return OK;
}

static status load_tsc_rate(int vcpu, uint32_t khz, struct fault *fault)
{
    int now = ioctl(vcpu, KVM_GET_TSC_KHZ, 0);
    if (khz == 0 || now == (int)khz || ioctl(vcpu, KVM_SET_TSC_KHZ, (unsigned long)khz) == 0)
        return OK;
    return FAIL(INTERNAL, fault, "vCPU: KVM_SET_TSC_KHZ: %s", strerror(errno));
}

/* Zero is what they begin with: one that cannot be set need not be, where it was never changed. */
static status load_msrs(int vcpu, const struct vcpu_msrs *msrs, struct fault *fault)
{
    for (uint32_t i = 0; i < msrs->head.nmsrs && i < VCPU_MSRS_MAX; i++) {
        struct vcpu_msrs one = {.head = {.nmsrs = 1}, .entries = {msrs->entries[i]}};
        if (ioctl(vcpu, KVM_SET_MSRS, &one) != 1 && msrs->entries[i].data != 0)
            return FAIL(INTERNAL, fault, "vCPU: KVM_SET_MSRS: %#x is not taken",
                        msrs->entries[i].index);
    }
    return OK;
}

status vcpu_state_load(int vcpu, const struct vcpu_state *state, struct fault *fault)
{
    TRY(load_tsc_rate(vcpu, state->tsc_khz, fault));
    CALL(KVM_SET_MP_STATE, &state->running);
    CALL(KVM_SET_REGS, &state->registers);
    CALL(KVM_SET_SREGS, &state->special);
    CALL(KVM_SET_XSAVE, &state->extended);
    CALL(KVM_SET_XCRS, &state->extended_control);
    CALL(KVM_SET_DEBUGREGS, &state->debug);
    CALL(KVM_SET_LAPIC, &state->apic);
    TRY(load_msrs(vcpu, &state->msrs, fault));
    CALL(KVM_SET_VCPU_EVENTS, &state->events);
    return OK;
}
