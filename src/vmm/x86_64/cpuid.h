/* cpuid.h: what a guest is told of its processors: what KVM can give, less what a sandbox must not
 * have (nested virtualisation, performance counters), with the topology of one socket. */
#pragma once

#include <linux/kvm.h>
#include <stdint.h>

enum { CPUID_ENTRIES_MAX = 128 };

struct cpuid_table { /* what KVM_SET_CPUID2 takes */
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entries[CPUID_ENTRIES_MAX];
};

/* In place: table as KVM_GET_SUPPORTED_CPUID gave it. */
void cpuid_for_vcpu(struct cpuid_table *table, uint32_t vcpu, uint32_t vcpus);
