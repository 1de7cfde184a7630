"""table.py: the figures of results.json as a table, for people."""


def _us(value):
    return f'{value:,.0f} us'


def _ms(value):
    return f'{value:,.2f} ms' if value < 100 else f'{value:,.0f} ms'


def _count(value):
    return f'{value:,.0f}'


def _kib(value):
    return f'{value:,.0f} KiB'


def _size(value):
    return f'{value / 1024:,.0f} KiB'


def _spread(figures, name):
    spread = figures.get(name + '_spread')
    return f' ({spread[0]:,.0f} to {spread[1]:,.0f})' if spread else ''


def _verdict(pairs):
    return 'met' if all(value <= limit for value, limit in pairs) else 'not met'


def _pair(times):
    return f'{_ms(times["p50_ms"])} / {_ms(times["p99_ms"])}'


def _read_rows(read):
    rows = []
    one = read['1']
    added, proxy = one['bulkhead_added'], one['nginx_proxy_added']
    rows.append(['governed read, added latency p50 / p99, 1 connection',
                 f'{_us(added["p50_us"])} / {_us(added["p99_us"])}',
                 f'nginx as a proxy adds {_us(proxy["p50_us"])} / {_us(proxy["p99_us"])}',
                 '100 / 150 us', _verdict([(added['p50_us'], 100), (added['p99_us'], 150)])])
    rows.append(['the same, whole request p50 / p99',
                 f'{_us(one["bulkhead"]["p50_us"])} / {_us(one["bulkhead"]["p99_us"])}',
                 f'through nginx {_us(one["nginx_proxy"]["p50_us"])} / '
                 f'{_us(one["nginx_proxy"]["p99_us"])}; without '
                 f'{_us(one["nginx_direct"]["p50_us"])} / {_us(one["nginx_direct"]["p99_us"])}',
                 '', ''])
    for connections, sides in read.items():
        rows.append([f'governed reads a second, {connections} connection'
                     f'{"s" if connections != "1" else ""}',
                     _count(sides['bulkhead']['per_second'])
                     + _spread(sides['bulkhead'], 'per_second'),
                     f'through nginx {_count(sides["nginx_proxy"]["per_second"])}; '
                     f'without {_count(sides["nginx_direct"]["per_second"])}', '', ''])
    rows.append(['the same over 8 tenants, 64 connections',
                 _count(read['64']['bulkhead_8_tenants']['per_second'])
                 + _spread(read['64']['bulkhead_8_tenants'], 'per_second'), '', '', ''])
    return rows


def _rate_rows(paced):
    ours, wide, proxy = (paced[name] for name in ('bulkhead', 'bulkhead_8_tenants', 'nginx_proxy'))
    return [[f'governed reads arriving evenly, {_count(paced["rate"])} a second, p50 / p99 / p99.9',
             _triple(ours), f'through nginx {_triple(proxy)}', '', ''],
            ['the same over 8 tenants', _triple(wide), '', '', '']]


def _triple(times):
    return f'{_us(times["p50_us"])} / {_us(times["p99_us"])} / {_us(times["p999_us"])}'


def _write_rows(write):
    rows = []
    for connections, sides in write.items():
        ours, peer, fair = (sides[name] for name in ('bulkhead', 'postgres',
                                                     'postgres_with_audit_row'))
        rows.append([f'durable writes a second, {connections} connection'
                     f'{"s" if connections != "1" else ""}',
                     _count(ours['per_second']) + _spread(ours, 'per_second'),
                     f'PostgreSQL, RLS {_count(peer["per_second"])}{_spread(peer, "per_second")}; '
                     f'and an audit row {_count(fair["per_second"])}', '', ''])
        rows.append(['their latency p50 / p99',
                     f'{_ms(ours["p50_us"] / 1e3)} / {_ms(ours["p99_us"] / 1e3)}',
                     f'PostgreSQL, RLS {_ms(peer["p50_us"] / 1e3)} / {_ms(peer["p99_us"] / 1e3)}; '
                     f'and an audit row {_ms(fair["p50_us"] / 1e3)} / {_ms(fair["p99_us"] / 1e3)}',
                     '', ''])
    sides = write['64']
    rows.append(['the same over 8 tenants, 64 connections',
                 _count(sides['bulkhead_8_tenants']['per_second'])
                 + _spread(sides['bulkhead_8_tenants'], 'per_second'), '', '', ''])
    return rows


def _wake_rows(wake):
    warm = wake['warm']
    return [[f'wake of a parked tenant with {_count(wake["memories"])} memories to its first '
             f'answer, p50 / p99 of {_count(warm["count"])}', _pair(warm),
             f'new PostgreSQL connection {_pair(wake["postgres_connection"])}; '
             f'start of sqlite3 {_pair(wake["sqlite_process"])}',
             '5 / 25 ms', _verdict([(warm['p50_ms'], 5), (warm['p99_ms'], 25)])],
            [f'the same, files not in the page cache, p50 / p99 of '
             f'{_count(wake["files_not_cached"]["count"])}', _pair(wake['files_not_cached']), '', '',
             '']]


def _front_rows(front):
    rows = []
    for name, what in (('tls13_new', 'TLS 1.3 handshakes'), ('tls13_resumed', 'TLS 1.3, resumed'),
                       ('tls12_new', 'TLS 1.2 handshakes'), ('tls12_resumed', 'TLS 1.2, resumed')):
        ours, peer = (front['handshakes'][name][side] for side in ('bulkhead', 'nginx'))
        rows.append([f'{what}, a second (with one request, refused)',
                     _count(ours['per_second']) + _spread(ours, 'per_second'),
                     f'nginx {_count(peer["per_second"])}{_spread(peer, "per_second")}', '', ''])
    for name, what in (('http1_1', 'HTTP/1.1, 1 connection'), ('http1_64', 'HTTP/1.1, 64 connections'),
                       ('http2_1', 'HTTP/2, 1 connection, 1 stream'),
                       ('http2_8x8', 'HTTP/2, 8 connections of 8 streams')):
        ours, static, proxy = (front['read'][name][side] for side in
                               ('bulkhead', 'nginx_static', 'nginx_before_bulkhead'))
        rows.append([f'governed reads over TLS a second, {what}',
                     f'{_count(ours["per_second"])}{_spread(ours, "per_second")}; '
                     f'{_us(ours["p50_us"])} / {_us(ours["p99_us"])}',
                     f'nginx before Bulkhead {_count(proxy["per_second"])}, {_us(proxy["p50_us"])} / '
                     f'{_us(proxy["p99_us"])}; nginx, a static file '
                     f'{_count(static["per_second"])}, {_us(static["p50_us"])} / '
                     f'{_us(static["p99_us"])}', '', ''])
    return rows


def _memory_rows(memory):
    private = memory['private']
    peer = memory['postgres']['private']
    return [[f'private memory of an idle awake cell, median / max of {memory["cells"]}',
             f'{_kib(private["median_kib"])} / {_kib(private["max_kib"])}',
             f'idle PostgreSQL backend {_kib(peer["median_kib"])} / {_kib(peer["max_kib"])}',
             '1,024 KiB', _verdict([(private['median_kib'], 1024)])],
            [f'the same, idle again after {_count(memory["after_writes"]["writes"])} writes',
             _kib(memory['after_writes']['private_kib']), '', '1,024 KiB',
             _verdict([(memory['after_writes']['private_kib'], 1024)])]]


def _disk_rows(disk, wake):
    whole = disk['bulkhead_empty_silo_bytes'] + disk['bulkhead_empty_keys_bytes']
    return [['a parked tenant: processes, memory',
             f'{wake["processes_of_a_parked_tenant"]}, 0 B', '', '0 B',
             _verdict([(wake['processes_of_a_parked_tenant'], 0)])],
            ['disk of an empty tenant, its keys included', _size(whole),
             f'empty SQLite {_size(disk["sqlite_empty_bytes"])}; '
             f'PostgreSQL schema {_size(disk["postgres_schema_bytes"])}', '16 KiB',
             _verdict([(whole, 16384)])],
            ['disk of a parked tenant with one memory',
             _size(disk['bulkhead_one_memory_parked_bytes']), '', '', '']]


def _engine_rows(engine):
    percent = engine['sealing']['overhead_percent_p50']
    sealed, plain = engine['sealing']['sealed'], engine['sealing']['plain']
    rows = []
    for name, what, limit in (('cached_read', 'read from the cache', 5),
                              ('point_read', 'read of a page from the file', 5),
                              ('scan', 'scan of 10 MiB', 5),
                              ('commit', 'durable commit of 100 rows', 10)):
        rows.append([f'sealing, {what}', f'{_fine(sealed[name]["p50_us"])} ({percent[name]:+.0f} %)',
                     f'plain SQLite {_fine(plain[name]["p50_us"])}', f'{limit} %',
                     _verdict([(percent[name], limit)])])
    for name, figures in engine['audit'].items():
        ours, plain = figures['bulkhead'], figures['plain_sqlite']
        batch = name.split('_')[1]
        rate = ours['durable_entries_per_second']
        budget = ['100,000', _verdict([(-rate, -100000)])] if batch == '1000' else ['', '']
        rows.append([f'durable audit entries a second, {batch} a commit',
                     _count(rate) + _spread(ours, 'durable_entries_per_second'),
                     f'plain SQLite {_count(plain["durable_entries_per_second"])}'
                     + _spread(plain, 'durable_entries_per_second'), *budget])
    proof = engine['audit']['batch_1000']['bulkhead']
    rows.append(['audit proof p50 / max', f'{_us(proof["proof_p50_us"])} / '
                 f'{_us(proof["proof_max_us"])}', '', '10 ms',
                 _verdict([(proof['proof_max_us'], 10000)])])
    return rows


def _fine(us):
    return f'{us:,.1f} us' if us < 100 else _us(us)


def _erase_rows(erase):
    small, large = erase['memories_100'], erase['memories_large']
    limit = [(small['p50_ms'], 10)]
    return [['erase a tenant of 100 memories, p50 / p99', _pair(small),
             f'PostgreSQL DROP SCHEMA, CHECKPOINT {_pair(erase["postgres_drop_schema_100"])}',
             '10 ms', _verdict(limit)],
            [f'erase a tenant of {_count(erase["large"])} memories, p50 / p99', _pair(large),
             f'PostgreSQL {_pair(erase["postgres_drop_schema_large"])}', '10 ms',
             _verdict([(large['p50_ms'], 10)])],
            ['the command `bulkhead tenant erase`, p50 / p99', _pair(erase['command_line_100']), '',
             '', '']]


def _mb(figures, name='mb_per_second'):
    return f'{figures[name]:,.0f}{_spread(figures, name)} MB/s'


def _quality_rows(quality):
    rows = []
    for kind, corpora in quality.items():
        what = kind.replace('_', ' ')
        for name, sides in corpora.items():
            ours, peer = (sides[side] for side in ('bulkhead', 'postgres'))
            rows.append([f'title -> page, {what}, {name} ({ours["queries"]} queries): nDCG@10 / recall@10',
                         f'{ours["ndcg_10"]:.3f} / {ours["recall_10"]:.3f}',
                         f'PostgreSQL ts_rank {peer["ndcg_10"]:.3f} / {peer["recall_10"]:.3f}', '', ''])
    return rows


def _knowledge_rows(knowledge):
    ingest, search = knowledge['ingest'], knowledge['search']
    ours, peer = ingest['bulkhead'], ingest['postgres']
    return [[f'documents taken in a second ({_count(ingest["documents"])} pages, '
             f'{ingest["bytes"] / 1e6:.0f} MB)',
             f'{_count(ours["per_second"])}; {ours["mb_per_second"]:.1f} MB/s',
             f'PostgreSQL tsvector, GIN, RLS {_count(peer["per_second"])}; '
             f'{peer["mb_per_second"]:.1f} MB/s', '', ''],
            ['search over all of them, ten best, p50 / p99', _pair(search['bulkhead']),
             f'PostgreSQL {_pair(search["postgres"])}', '', ''],
            *_quality_rows(knowledge['quality'])]


def _object_rows(objects):
    engine = objects['engine']
    gib = objects['bytes'] / 2**30
    rows = []
    for way, what in (('write', 'written'), ('read', 'read')):
        sealed, plain = (engine[side][f'{way}_mib_s'] * 2**20 / 1e6 for side in ('blob', 'plain'))
        percent = (1 - sealed / plain) * 100
        rows.append([f'an object of {gib:.0f} GiB sealed chunk by chunk, {what}', f'{sealed:,.0f} MB/s',
                     f'AES-256-GCM, one file {plain:,.0f} MB/s', 'at most 20 % slower',
                     _verdict([(percent, 20)])])
    for way in ('put', 'get'):
        rows.append([f'the same over HTTP, {way.upper()}', _mb(objects[way]['bulkhead']),
                     f'nginx, plain files, {"not synced" if way == "put" else "sendfile"} '
                     f'{_mb(objects[way]["nginx"])}', '', ''])
    rows.append(['one byte in the middle of it, p50 / p99', _pair(objects['range']['bulkhead']),
                 f'nginx {_pair(objects["range"]["nginx"])}', '', ''])
    return rows


def _care_rows(care, proofs):
    return [[f'backup of {_count(care["stored_mb"])} MB, in use',
             f'{care["backup_mb_per_second"]:,.0f} MB/s', f'cp -r, sync '
             f'{care["copy_mb_per_second"]:,.0f} MB/s', '', ''],
            [f'the next one, {care["incremental"]["mb"]:.1f} MB',
             f'{care["incremental"]["seconds"]:.2f} s', '', '', ''],
            ['check of every page, chunk and proof of it', f'{care["check_mb_per_second"]:,.0f} MB/s', '',
             '', ''],
            ['restore of it, every page and chunk verified',
             f'{care["restore_mb_per_second"]:,.0f} MB/s', '', '', ''],
            [f'erase a tenant with 1 GB stored, p50 / max of {care["erase_1_gb"]["count"]}',
             f'{_ms(care["erase_1_gb"]["p50_ms"])} / {_ms(care["erase_1_gb"]["max_ms"])}',
             f'rm -r {_ms(care["rm_1_gb"]["p50_ms"])} / {_ms(care["rm_1_gb"]["max_ms"])}', '10 ms',
             _verdict([(care['erase_1_gb']['p50_ms'], 10)])],
            [f'audit proof at {_count(proofs["entries"])} entries, p50 / max',
             f'{_us(proofs["proof_p50_us"])} / {_us(proofs["proof_max_us"])}', '', '10 ms',
             _verdict([(proofs['proof_max_us'], 10000)])]]


def rows(results):
    """[what, Bulkhead, peers, budget, met or not met]"""
    figures = results['figures']
    found = []
    if 'serving' in figures:
        serving = figures['serving']
        found += _read_rows(serving['read']) + _rate_rows(serving['read_at_a_rate'])
        found += _write_rows(serving['write'])
        found.append(['refusals a second (scope missing), 64 connections',
                      _count(serving['denial']['64']['per_second'])
                      + _spread(serving['denial']['64'], 'per_second'), '', '', ''])
    if 'front' in figures:
        found += _front_rows(figures['front'])
    if 'lifecycle' in figures:
        life = figures['lifecycle']
        found += _wake_rows(life['wake']) + _memory_rows(life['memory'])
        found += _disk_rows(life['disk'], life['wake'])
        found += _erase_rows(life['erase'])
        found.append(['create a tenant; mint a token, p50 / p99', f'{_pair(life["control"]["create"])};'
                      f' {_pair(life["control"]["mint"])}', '', '', ''])
    if 'holdings' in figures:
        held = figures['holdings']
        found += _knowledge_rows(held['knowledge']) + _object_rows(held['objects'])
        found += _care_rows(held['care'], held['audit_large'])
    if 'engine' in figures:
        found += _engine_rows(figures['engine'])
    if 'vmm' in figures:
        found += _vmm_rows(figures['vmm'])
    return found


def _rate(value):
    return f'{value / 1048576:,.0f} MiB/s'


def _share(sides, name):
    """What part of QEMU's time ours takes, in words."""
    if not all(name in sides[side] for side in ('ours', 'qemu')):
        return ' and '.join(side for side in ('ours', 'qemu') if name not in sides[side]) + ' fell silent'
    ours, qemu = sides['ours'][name], sides['qemu'][name]
    return f'{qemu / ours if name.endswith("per_second") else ours / qemu:.2f}'


# The budgets are what the milestone that brought microVMs asks for.
def _vmm_rows(vmm):
    """Times are counted in instructions of an emulated host: ratios are what the rows say."""
    rows = []
    counted, clock = vmm['counted'], vmm['clock']
    for name, what, show in (
            ('hello_us', 'monitor\'s start until the guest\'s agent answers', _us),
            ('guest_us', 'of these, since the guest\'s kernel began', _us),
            ('exec_us', 'a command in a running guest, there and back', _us),
            ('echo_us', 'one byte to a command and back (vsock)', _us),
            ('stream_bytes_per_second', 'output of a command (vsock)', _rate),
            ('write_bytes_per_second', 'file written and synced (block)', _rate),
            ('read_bytes_per_second', 'file read, not in the guest\'s cache (block)', _rate),
            ('read_4k_us', 'reads of 4 KiB from the disk, one by one', _us),
            ('busy_echo_us', 'one byte to a command and back while the disk is read', _us),
            ('busy_echo_worst_us', 'the worst of 17 of these', _us)):
        booting = name in ('hello_us', 'guest_us')
        by_clock = '' if booting else f'; by the clock {_share(clock, name)}'
        ours, qemu = (show(counted[side][name]) if name in counted[side] else 'silent' for side in ('ours', 'qemu'))
        rows.append([f'microVM in the lab (counted): {what}', ours,
                     f'QEMU microvm {qemu}; of its time ours takes {_share(counted, name)}{by_clock}',
                     *(['not later than QEMU', _verdict([(counted['ours'][name], counted['qemu'][name])])]
                       if name == 'hello_us' else ['', ''])])
    ours, qemu = (counted[side]['private_kib'] for side in ('ours', 'qemu'))
    rows.append(['private memory of a monitor beyond its guest\'s', _kib(ours), f'QEMU microvm {_kib(qemu)}',
                 '1,024 KiB', _verdict([(ours, 1024)])])
    return rows + _vmm_native_rows(vmm)


def _vmm_native_rows(vmm):
    rows = []
    vsock = vmm['vsock']
    rows.append(['the vsock device alone, to the guest; from it; round trip of 64 B',
                 f'{vsock["to_guest_mib_s"]:,} MiB/s; {vsock["from_guest_mib_s"]:,} MiB/s; '
                 f'{vsock["round_trip_us"]:.1f} us', f'the bare socketpair {vsock["socketpair_mib_s"]:,} MiB/s; '
                 f'{vsock["socketpair_round_trip_us"]:.1f} us', '', ''])
    for name in ('4 KiB, depth 32', '128 KiB, depth 32'):
        block = vmm['block'][name]
        rows.append([f'the block device alone, reads of {name}, each', f'{block["device_ns"] / 1000:.1f} us',
                     f'pread {block["pread_ns"] / 1000:.1f} us', '', ''])
    cached, cold = (vmm['block'][f'a turn from the {where}'] for where in ('page cache', 'disk'))
    rows.append(['a turn of a busy disk, for which other devices wait, p50 / max: from the page cache; from the disk',
                 f'{_us(cached["p50_us"])} / {_us(cached["max_us"])}; {_us(cold["p50_us"])} / {_us(cold["max_us"])}',
                 '', '', ''])
    if 'create' in vmm:
        ways = vmm['create']
        first, last = ways['split, memory first'], ways['split, memory last']
        kernels = ways['in-kernel, memory last']
        rows.append(['an empty virtual machine, created; closed',
                     f'{_us(first["whole"] - first["close"])}; {_us(first["close"])}',
                     f'memory registered last {_us(last["whole"] - last["close"])}; {_us(last["close"])}; that and an '
                     f'interrupt controller in the kernel {_us(kernels["whole"] - kernels["close"])}; '
                     f'{_us(kernels["close"])}', '', ''])
        rows += _start_rows(vmm['started'], vmm['sandboxes'])
    return rows


def _start_rows(started, sandboxes):
    """Natively, with a guest of a few instructions."""
    rows = []
    for jobs, ours in started['jailed'].items():
        rate, bare, qemu = (figures['per_second'] for figures in
                            (ours, started['unjailed'][jobs], started['qemu'][jobs]))
        how = 'one after another' if jobs == '1' else f'{jobs} at a time'
        rows.append([f'monitors started, a tiny guest run, all gone, a second, {how}',
                     f'{_count(rate)}{_spread(ours, "per_second")}; unjailed {_count(bare)}',
                     f'QEMU microvm, unjailed {_count(qemu)}', '', ''])
    one, peer = started['jailed']['1'], started['qemu']['1']
    rows.append(['of one: until it asks for work; its jail is closed; its guest has ended; it is gone',
                 '; '.join(_us(one[f'{step}_us']) for step in ('blank', 'jailed', 'ended', 'gone')),
                 f'QEMU microvm gone {_us(peer["gone_us"])}', '', ''])
    for jobs, ours in sandboxes.items():
        how = 'one after another' if jobs == '1' else f'{jobs} at a time'
        rows.append([f'`bulkhead sandbox run` a second, {how}; p50 / p99, tiny guest',
                     f'{_count(ours["per_second"])}{_spread(ours, "per_second")}; {_pair(ours)}', '', '', ''])
    return rows


HEADER = ['figure', 'Bulkhead', 'beside it', 'budget', '']


def is_headline(row):
    """What the README shows: every figure with a budget, met or not, and every rate."""
    return (bool(row[3]) or ' a second' in row[0] or 'search over' in row[0] or 'backup of' in row[0]
            or row[0].startswith('microVM in the lab'))


def markdown(results, headlines_only):
    lines = ['| ' + ' | '.join(HEADER) + ' |', '|---|---|---|---|---|']
    lines += ['| ' + ' | '.join(row) + ' |' for row in rows(results)
              if not headlines_only or is_headline(row)]
    return '\n'.join(lines) + '\n'


def plain(results):
    table = [HEADER] + rows(results)
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(row, widths)) + '  ' + row[4]
                     for row in table)


_TITLES = {'engine': 'store', 'front': 'front door', 'serving': 'serving', 'lifecycle': 'life of a tenant',
           'holdings': 'holdings', 'vmm': 'microVMs'}


def machine(results):
    """One paragraph: on what this was measured; for each run when the parts are of several."""
    runs = results['runs']
    told = []
    for run in runs:
        parts = f' ({", ".join(_TITLES[part] for part in run["parts"])})' if len(runs) > 1 else ''
        told.append(_run(run, parts))
    return (' '.join(told) + ' Figures in brackets: least and greatest of the rounds, of which the table shows the '
            f'median. {runs[0]["machine"]["versions"]}.')


def _run(run, parts):
    about = run['machine']
    disk = about['sync_4k']
    realtime = ', all of it under real-time scheduling' if about['realtime'] else ''
    return (f'Measured {run["when"]}{parts} on {about["cpus"]} CPUs ({about["cpu"]}, '
            f'{about["memory_mib"] // 1024} GiB, {about["virtual"]}), Linux {about["kernel"]}, '
            f'{about["filesystem"]}{realtime}; load average before {about["load_before"]:.1f}, after '
            f'{about["load_after"]:.1f}; a synced write of 4 KiB took {_pair(disk["before"])} '
            f'(p50 / p99) before and {_pair(disk["after"])} after.')
