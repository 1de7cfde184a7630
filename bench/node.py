"""node.py: a Bulkhead node for measuring, its admin socket and one HTTP connection to it."""
import array
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import time

from common import BUILD, free_port, memory, request_bytes

ADMIN_CALL, ADMIN_RESULT = 0x0801, 0x0802


def _field(data):
    return struct.pack('>I', len(data)) + data


class Node:
    def __init__(self, directory, config=None):
        self.directory = directory
        self.data = os.path.join(directory, 'data')
        self.keys = self.data + '.keys'
        self.port = free_port()
        self.tls = bool(config and 'tls_cert' in config)
        words = [os.path.join(BUILD, 'bulkhead'), 'serve', '--data', self.data,
                 '--listen', f'127.0.0.1:{self.port}', '--ops', f'127.0.0.1:{free_port()}']
        if config:
            path = os.path.join(directory, 'config.json')
            with open(path, 'w') as file:
                json.dump(config, file)
            words += ['--config', path]
        self.log = open(os.path.join(directory, 'bulkhead.log'), 'w')
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line.startswith('bulkhead ready '):
            self.process.wait(30)
            with open(self.log.name) as file:
                raise RuntimeError(f'bulkhead serve: {line}{file.read()[-2000:]}')

    def call(self, verb, **arguments):
        """One call over admin.sock, as the command line makes it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
            channel.connect(os.path.join(self.data, 'run/admin.sock'))
            channel.send(struct.pack('>II', ADMIN_CALL, 1) + _field(verb.encode())
                         + _field(json.dumps(arguments).encode()))
            packet, ancillary, _, _ = channel.recvmsg(65536, socket.CMSG_SPACE(4 * 4))
        fds = array.array('i')
        for _, _, data in ancillary:
            fds.frombytes(data)
        kind, _, status, length = struct.unpack_from('>IIHI', packet)
        detail = packet[14:14 + length]
        if kind != ADMIN_RESULT or status != 0:
            raise RuntimeError(f'{verb}: {status}: {detail.decode()}')
        if fds:
            with os.fdopen(fds[0], 'rb') as file:
                file.seek(0)
                return json.loads(file.read())
        return json.loads(packet[14 + length + 4:])

    def cli(self, *words):
        done = subprocess.run([os.path.join(BUILD, 'bulkhead'), *words, '--data', self.data],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise RuntimeError(f'bulkhead {" ".join(words)}: {done.stderr}')
        return done.stdout

    def create(self, name):
        """Without quotas: the defaults bound requests a second."""
        return self.call('tenant.create', name=name,
                         quotas={'requests_per_second': 0, 'concurrent_requests': 0,
                                 'bytes_stored': 0})['id']

    def token(self, name, scope='memory:read memory:write audit:read tenant:read'):
        return self.call('token.mint', name=name, user='ada', scope=scope,
                         ttl_seconds=7200)['token']

    def get(self, target, token):
        client = self.client()
        try:
            return client.ask(request_bytes('GET', target, token))
        finally:
            client.close()

    def client(self):
        return Client(self.port, self.tls)

    def silo(self, tenant_id):
        return os.path.join(self.data, 'silos', tenant_id)

    def status(self):
        return self.call('status')

    def cells(self):
        return {cell['tenant_id']: cell for cell in self.status()['cells']}

    def park(self, name, tenant_id):
        """Pauses the tenant; back when no process of it is left."""
        self.call('tenant.pause', name=name)
        while tenant_id in self.cells():
            time.sleep(.002)

    def fill(self, token, count, connections=64):
        """Stores `count` memories through the API, each with a text of its own; yields their ids."""
        clients = [self.client() for _ in range(min(connections, count))]
        sent, ids = 0, []
        while sent < count:
            batch = clients[:count - sent]
            for client in batch:
                client.send(request_bytes('POST', '/v1/memories', token, memory(sent)))
                sent += 1
            for client in batch:
                ids.append(json.loads(client.receive(201))['id'])
        for client in clients:
            client.close()
        return ids

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.log.close()


class Client:
    """One keep-alive connection."""

    def __init__(self, port, tls=False):
        self.socket = socket.create_connection(('127.0.0.1', port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # made for this run
            self.socket = context.wrap_socket(self.socket)

    def send(self, request):
        self.socket.sendall(request)

    def receive(self, status):
        data = b''
        while True:
            piece = self.socket.recv(65536)
            if not piece:
                raise RuntimeError('the node closed the connection')
            data += piece
            head, end, body = data.partition(b'\r\n\r\n')
            if not end:
                continue
            length = 0
            for line in head.lower().split(b'\r\n'):
                if line.startswith(b'content-length:'):
                    length = int(line[15:])
            if len(body) < length:
                continue
            if int(data[9:12]) != status:
                raise RuntimeError(data.decode())
            return body

    def ask(self, request, status=200):
        self.send(request)
        return self.receive(status)

    def close(self):
        self.socket.close()

