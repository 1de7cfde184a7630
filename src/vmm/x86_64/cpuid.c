#include "vmm/x86_64/cpuid.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    LEAF_FEATURES = 1, LEAF_CACHES = 4, LEAF_PERFORMANCE = 0xA, LEAF_TOPOLOGY = 0xB,
    LEAF_TOPOLOGY_2 = 0x1F,
};
#define LEAF_AMD_FEATURES 0x80000001u
#define LEAF_AMD_SIZES 0x80000008u
#define LEAF_AMD_NESTED 0x8000000Au
#define LEAF_AMD_CACHES 0x8000001Du
#define LEAF_AMD_TOPOLOGY 0x8000001Eu
#define LEAF_AMD_PERFORMANCE 0x80000022u

#define BIT(n) (1u << (n))

static_assert(offsetof(struct cpuid_table, entries) == sizeof(struct kvm_cpuid2), "as KVM reads");

static uint32_t bits_for(uint32_t vcpus)
{
    uint32_t bits = 0;
    while (BIT(bits) < vcpus)
        bits++;
    return bits;
}

static void features(struct kvm_cpuid_entry2 *entry, uint32_t vcpu, uint32_t vcpus)
{
    entry->ebx = (entry->ebx & 0xFF00) | BIT(bits_for(vcpus)) << 16 | vcpu << 24;
    /* without: 64-bit debug store, MONITOR, CPL-qualified store, VMX, perf capabilities */
    entry->ecx &= ~(BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(15));
    entry->ecx |= BIT(24) | BIT(31); /* TSC deadline timer, hypervisor */
    entry->edx &= ~(BIT(21) | BIT(28));
    if (vcpus > 1)
        entry->edx |= BIT(28); /* more than one logical processor in the package */
}

/* Level 1 and 2 caches are a core's own, the third is shared. */
static void caches(struct kvm_cpuid_entry2 *entry, uint32_t vcpus, bool counts_cores)
{
    if ((entry->eax & 0x1F) == 0)
        return;
    uint32_t level = entry->eax >> 5 & 7;
    uint32_t sharing = level >= 3 ? BIT(bits_for(vcpus)) - 1 : 0;
    uint32_t cores = counts_cores ? BIT(bits_for(vcpus)) - 1 : 0;
    entry->eax = (entry->eax & 0x3FFF) | sharing << 14 | cores << 26;
}

static void clear(struct kvm_cpuid_entry2 *entry)
{
    entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
}

static void edit(struct kvm_cpuid_entry2 *entry, uint32_t vcpu, uint32_t vcpus)
{
    switch (entry->function) {
    case LEAF_FEATURES: features(entry, vcpu, vcpus); break;
    case LEAF_CACHES: caches(entry, vcpus, true); break;
    case LEAF_AMD_CACHES: caches(entry, vcpus, false); break;
    case LEAF_PERFORMANCE:
    case LEAF_AMD_NESTED:
    case LEAF_AMD_PERFORMANCE: clear(entry); break;
    case LEAF_AMD_FEATURES: /* without: SVM, IBS, watchdog, performance counters */
        entry->ecx &= ~(BIT(1) | BIT(2) | BIT(10) | BIT(13) | BIT(23) | BIT(24) | BIT(28));
        if (vcpus > 1)
            entry->ecx |= BIT(1); /* cores, not threads */
        break;
    case LEAF_AMD_SIZES:
        entry->ecx = (vcpus - 1) | bits_for(vcpus) << 12;
        break;
    case LEAF_AMD_TOPOLOGY:
        entry->eax = entry->ebx = vcpu;
        entry->ecx = 0;
        break;
    default: break;
    }
}

static void put(struct cpuid_table *table, const struct kvm_cpuid_entry2 *entry)
{
    if (table->head.nent < CPUID_ENTRIES_MAX)
        table->entries[table->head.nent++] = *entry;
}

/* One thread a core, all cores in one package. */
static void put_topology(struct cpuid_table *table, uint32_t leaf, uint32_t vcpu, uint32_t vcpus)
{
    struct kvm_cpuid_entry2 entry = {.function = leaf, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                                     .ebx = 1, .ecx = 1 << 8, .edx = vcpu};
    put(table, &entry);
    entry.index = 1;
    entry.eax = bits_for(vcpus);
    entry.ebx = vcpus;
    entry.ecx = 2 << 8 | 1;
    put(table, &entry);
    entry.index = 2;
    entry.eax = entry.ebx = 0;
    entry.ecx = 2;
    put(table, &entry);
}

void cpuid_for_vcpu(struct cpuid_table *table, uint32_t vcpu, uint32_t vcpus)
{
    assert(table->head.nent <= CPUID_ENTRIES_MAX && vcpu < vcpus);
    uint32_t kept = 0, last = 0;
    for (uint32_t i = 0; i < table->head.nent; i++) {
        struct kvm_cpuid_entry2 entry = table->entries[i];
        if (entry.function == 0)
            last = entry.eax;
        if (entry.function == LEAF_TOPOLOGY || entry.function == LEAF_TOPOLOGY_2)
            continue;
        edit(&entry, vcpu, vcpus);
        table->entries[kept++] = entry;
    }
    table->head.nent = kept;
    if (last >= LEAF_TOPOLOGY)
        put_topology(table, LEAF_TOPOLOGY, vcpu, vcpus);
    if (last >= LEAF_TOPOLOGY_2)
        put_topology(table, LEAF_TOPOLOGY_2, vcpu, vcpus);
}
