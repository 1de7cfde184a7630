"""peers.py: what people use today for the same work, each with the settings that its own documents
give for it, on the same machine and the same disk, in the same run."""
import os
import pwd
import socket
import struct
import subprocess
import time

from common import free_port, remove_directory, run

PG_BIN = '/usr/lib/postgresql/15/bin'


class Nginx:
    """One worker a core, as the gateway has: a static upstream, and a proxy with keep-alive before it."""

    def __init__(self, directory, body):
        self.directory = os.path.join(directory, 'nginx')
        os.makedirs(os.path.join(self.directory, 'www'))
        self.upstream_port, self.proxy_port = free_port(), free_port()
        with open(os.path.join(self.directory, 'www/memory.json'), 'wb') as file:
            file.write(body)
        with open(os.path.join(self.directory, 'nginx.conf'), 'w') as file:
            file.write(self._configuration())
        subprocess.run(['chmod', '-R', 'a+rX', self.directory], check=True)
        self.process = subprocess.Popen(
            ['/usr/sbin/nginx', '-p', self.directory, '-c', 'nginx.conf', '-e', 'stderr'],
            stderr=open(os.path.join(self.directory, 'log'), 'w'))
        _await_port(self.proxy_port, self.process, 'nginx')

    def _configuration(self):
        return f'''daemon off; master_process on; worker_processes {os.cpu_count()}; pid nginx.pid;
error_log stderr error; events {{ worker_connections 4096; }}
http {{
  access_log off; default_type application/json; keepalive_requests 100000000; sendfile on;
  tcp_nodelay on; open_file_cache max=100; client_body_temp_path t1; proxy_temp_path t2;
  fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
  upstream memories {{ server 127.0.0.1:{self.upstream_port}; keepalive 256;
                       keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{self.upstream_port} backlog=4096; root {self.directory}/www;
            location / {{ try_files /memory.json =404; }} }}
  server {{ listen 127.0.0.1:{self.proxy_port} backlog=4096;
            location / {{ proxy_pass http://memories; proxy_http_version 1.1;
                          proxy_set_header Connection ""; proxy_buffering on; }} }}
}}
'''

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


class NginxTls:
    """nginx with TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2: a static answer, and a proxy before a node without
    TLS. Session tickets on, as its default is; the same certificate as the node beside it."""

    def __init__(self, directory, body, certificate, key, upstream_port):
        self.directory = os.path.join(directory, 'nginx-tls')
        os.makedirs(os.path.join(self.directory, 'www'))
        self.static_port, self.proxy_port = free_port(), free_port()
        with open(os.path.join(self.directory, 'www/memory.json'), 'wb') as file:
            file.write(body)
        with open(os.path.join(self.directory, 'nginx.conf'), 'w') as file:
            file.write(f'''daemon off; master_process on; worker_processes {os.cpu_count()}; pid nginx.pid;
error_log stderr error; events {{ worker_connections 4096; }}
http {{
  access_log off; default_type application/json; keepalive_requests 100000000; sendfile on;
  tcp_nodelay on; open_file_cache max=100; client_body_temp_path t1; proxy_temp_path t2;
  fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
  ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;
  upstream node {{ server 127.0.0.1:{upstream_port}; keepalive 256;
                   keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{self.static_port} ssl http2 backlog=4096; root {self.directory}/www;
            location / {{ try_files /memory.json =404; }} }}
  server {{ listen 127.0.0.1:{self.proxy_port} ssl http2 backlog=4096;
            location / {{ proxy_pass http://node; proxy_http_version 1.1;
                          proxy_set_header Connection ""; proxy_buffering on; }} }}
}}
''')
        subprocess.run(['chmod', '-R', 'a+rX', self.directory], check=True)
        self.process = subprocess.Popen(
            ['/usr/sbin/nginx', '-p', self.directory, '-c', 'nginx.conf', '-e', 'stderr'],
            stderr=open(os.path.join(self.directory, 'log'), 'w'))
        _await_port(self.proxy_port, self.process, 'nginx')

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


class NginxDav:
    """nginx that takes files by PUT and gives them by sendfile: neither sealed nor synced."""

    def __init__(self, directory):
        self.directory = os.path.join(directory, 'nginx-dav')
        os.makedirs(os.path.join(self.directory, 'www'))
        self.port = free_port()
        with open(os.path.join(self.directory, 'nginx.conf'), 'w') as file:
            file.write(f'''user root; daemon off; worker_processes {os.cpu_count()}; pid nginx.pid;
error_log stderr error; events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; tcp_nodelay on; client_max_body_size 0; client_body_temp_path www/t1;
  proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
  server {{ listen 127.0.0.1:{self.port}; root {self.directory}/www;
            location / {{ dav_methods PUT DELETE; client_body_buffer_size 1m; }} }}
}}
''')
        self.process = subprocess.Popen(
            ['/usr/sbin/nginx', '-p', self.directory, '-c', 'nginx.conf', '-e', 'stderr'],
            stderr=open(os.path.join(self.directory, 'log'), 'w'))
        _await_port(self.port, self.process, 'nginx')

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        remove_directory(self.directory)


def _await_port(port, process, name):
    for _ in range(100):
        if process.poll() is not None:
            raise RuntimeError(f'{name} ended at its start')
        try:
            socket.create_connection(('127.0.0.1', port), 1).close()
            return
        except OSError:
            time.sleep(.05)
    raise RuntimeError(f'{name} does not listen')


class Postgres:
    """PostgreSQL 15, durable (synchronous_commit = on), row-level security forced on the owner too: every
    transaction names its tenant first. The tables have the columns and indexes that a memory has here,
    full text included."""

    SCHEMA = '''
CREATE TABLE {s}memories (
  n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid NOT NULL,
  id uuid NOT NULL DEFAULT gen_random_uuid(), user_id text NOT NULL, session_id text, agent_id text,
  kind smallint NOT NULL, classification smallint NOT NULL, version int NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz, metadata jsonb, text text NOT NULL,
  words tsvector GENERATED ALWAYS AS (to_tsvector('simple', text)) STORED);
CREATE UNIQUE INDEX ON {s}memories (tenant_id, id);
CREATE INDEX ON {s}memories (tenant_id, user_id, id);
CREATE INDEX ON {s}memories (tenant_id, user_id, session_id, id) WHERE session_id IS NOT NULL;
CREATE INDEX ON {s}memories (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX ON {s}memories USING gin (words);
CREATE TABLE {s}audit (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id uuid NOT NULL,
  at timestamptz NOT NULL DEFAULT now(), entry jsonb NOT NULL);
'''
    POLICY = '''
ALTER TABLE {t} ENABLE ROW LEVEL SECURITY; ALTER TABLE {t} FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {t} USING (tenant_id = current_setting('app.tenant')::uuid)
  WITH CHECK (tenant_id = current_setting('app.tenant')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON {t} TO app;
'''

    def __init__(self, directory):
        self.directory = os.path.join(directory, 'postgres')
        os.makedirs(self.directory)
        user = pwd.getpwnam('postgres')
        os.chown(self.directory, user.pw_uid, user.pw_gid)
        self.cluster = os.path.join(self.directory, 'cluster')
        self.port = free_port()
        self._as_postgres(f'{PG_BIN}/initdb', '-D', self.cluster, '-A', 'trust', '-U', 'postgres',
                          '-E', 'UTF8', '--locale=C.UTF-8')
        self._as_postgres(
            f'{PG_BIN}/pg_ctl', '-D', self.cluster, '-w', '-l', f'{self.directory}/log', '-o',
            f'-p {self.port} -c listen_addresses= -c unix_socket_directories={self.directory} '
            '-c synchronous_commit=on -c fsync=on -c shared_buffers=1GB -c max_connections=200 '
            '-c max_wal_size=4GB', 'start')
        self.sql('CREATE ROLE app LOGIN; CREATE DATABASE bench OWNER postgres;', database='postgres')
        self.sql(self.SCHEMA.format(s='') + self.POLICY.format(t='memories')
                 + self.POLICY.format(t='audit'))
        self.sql('GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app;')

    def _as_postgres(self, *words):
        run('setpriv', '--reuid=postgres', '--regid=postgres', '--init-groups', *words,
            cwd=self.directory, stdin=subprocess.DEVNULL)

    def sql(self, text, database='bench'):
        return run(f'{PG_BIN}/psql', '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-h',
                   self.directory, '-p', str(self.port), '-U', 'postgres', '-d', database, '-f', '-',
                   input=text).strip()

    def bench(self, script, connections, seconds):
        """pgbench with prepared statements in a pipeline: one round trip a transaction."""
        logs = os.path.join(self.directory, 'pgbench')
        for old in os.listdir(self.directory):
            if old.startswith('pgbench.'):
                os.unlink(os.path.join(self.directory, old))
        path = os.path.join(self.directory, 'script.sql')
        with open(path, 'w') as file:
            file.write(script)
        run(f'{PG_BIN}/pgbench', '-n', '-M', 'prepared', '-f', path, '-c', str(connections), '-j',
            str(min(connections, 2)), '-T', str(seconds), '-h', self.directory, '-p', str(self.port),
            '-U', 'app', '-l', f'--log-prefix={logs}', 'bench', cwd=self.directory)
        return self._read_logs(seconds)

    def _read_logs(self, seconds):
        rows = []
        for name in os.listdir(self.directory):
            if name.startswith('pgbench.'):
                with open(os.path.join(self.directory, name)) as file:
                    for line in file:
                        words = line.split()
                        rows.append((int(words[4]) + int(words[5]) / 1e6, int(words[2])))
        end = max(at for at, _ in rows)
        counted = sorted(us for at, us in rows if at > end - seconds * .8)  # the first fifth warms up
        return {'per_second': round(len(counted) / (seconds * .8), 1),
                'p50_us': counted[len(counted) // 2], 'p99_us': counted[int(len(counted) * .99)]}

    def backend(self, user='app'):
        return Backend(self, user)

    def stop(self):
        self._as_postgres(f'{PG_BIN}/pg_ctl', '-D', self.cluster, '-m', 'fast', 'stop')
        remove_directory(self.directory)


class Backend:
    """One connection as libpq makes it, without the library's own start: the message flow of the frontend
    protocol 3.0 with trust authentication."""

    def __init__(self, server, user):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(f'{server.directory}/.s.PGSQL.{server.port}')
        body = struct.pack('>I', 196608) + f'user\0{user}\0database\0bench\0\0'.encode()
        self.socket.sendall(struct.pack('>I', len(body) + 4) + body)
        self.buffer = b''
        self.pid = None
        self._until_ready()

    def _until_ready(self, values=None):
        """How many rows came; their first columns go into `values`."""
        rows = 0
        while True:
            while len(self.buffer) < 5:
                self._more()
            kind, length = self.buffer[:1], struct.unpack_from('>I', self.buffer, 1)[0]
            while len(self.buffer) < 1 + length:
                self._more()
            body, self.buffer = self.buffer[5:1 + length], self.buffer[1 + length:]
            if kind == b'E':
                raise RuntimeError(body.decode(errors='replace'))
            if kind == b'K':
                self.pid = struct.unpack('>II', body)[0]
            rows += kind == b'D'
            if kind == b'D' and values is not None:
                values.append(body[6:6 + struct.unpack_from('>I', body, 2)[0]].decode())
            if kind == b'Z':
                return rows

    def _more(self):
        piece = self.socket.recv(65536)
        if not piece:
            raise RuntimeError('PostgreSQL closed the connection')
        self.buffer += piece

    def query(self, text, values=None):
        body = text.encode() + b'\0'
        self.socket.sendall(b'Q' + struct.pack('>I', len(body) + 4) + body)
        return self._until_ready(values)

    def rows(self, text):
        """The first column of every row."""
        values = []
        self.query(text, values)
        return values

    def close(self):
        self.socket.sendall(b'X' + struct.pack('>I', 4))
        self.socket.close()
