// What people run Node.js for: worker threads, cluster, HTTP, child processes, files, streams. Prints what it finds.
import { Worker, isMainThread, parentPort, workerData, threadId } from 'node:worker_threads';
import cluster from 'node:cluster';
import http from 'node:http';
import fs from 'node:fs';
import path from 'node:path';
import os from 'node:os';
import zlib from 'node:zlib';
import crypto from 'node:crypto';
import net from 'node:net';
import { execFile, spawn, fork } from 'node:child_process';
import { promisify } from 'node:util';
import { once } from 'node:events';
const self = new URL(import.meta.url).pathname;

function get(options) {
  return new Promise((resolve, reject) => {
    http.get(options, answer => {
      let text = '';
      answer.on('data', piece => text += piece);
      answer.on('end', () => resolve(text));
    }).on('error', reject);
  });
}

if (!isMainThread) {
  const view = new Int32Array(workerData);
  for (let turn = 0; turn < 1000; turn++) Atomics.add(view, 0, 1);
  parentPort.postMessage('done');
} else if (cluster.isWorker) {
  http.createServer((request, response) => {
    if (request.url === '/die') process.exit(3);
    response.end('worker ' + cluster.worker.id);
  }).listen(8001, '127.0.0.1');
} else if (process.argv[2]) {
  // Asked from the network.
  http.createServer((request, response) => response.end('node ' + request.method + '\n')).listen(8080, () => console.log('serving'));
} else {
  // Worker threads that add to shared memory.
  const shared = new SharedArrayBuffer(4);
  const workers = Array.from({ length: 4 }, () => new Worker(self, { workerData: shared }));
  await Promise.all(workers.map(worker => once(worker, 'exit')));
  console.log('threads', new Int32Array(shared)[0]);
  // An HTTP server and 200 requests, 20 kept connections.
  const server = http.createServer((request, response) => {
    const hash = crypto.createHash('sha256');
    request.on('data', piece => hash.update(piece));
    request.on('end', () => response.end(request.method + ' ' + hash.digest('hex').slice(0, 8)));
  }).listen(8000);
  await once(server, 'listening');
  const agent = new http.Agent({ keepAlive: true, maxSockets: 20 });
  const answers = await Promise.all(Array.from({ length: 200 }, (_, n) => get({ port: 8000, path: '/' + n, agent })));
  console.log('http', new Set(answers).size, answers[0]);
  agent.destroy(); server.close();
  // A cluster of two, and one that dies is replaced.
  cluster.fork(); cluster.fork();
  for (let n = 0; n < 2; n++) await once(cluster, 'listening');
  const seen = new Set();
  for (let n = 0; n < 20; n++) seen.add(await get({ port: 8001, host: '127.0.0.1', agent: false }));
  console.log('cluster', [...seen].sort().join(', '));
  const ended = once(cluster, 'exit');
  await get({ port: 8001, host: '127.0.0.1', path: '/die', agent: false }).catch(error => console.log(error.code));
  const [worker, code] = await ended;
  console.log('died with', code);
  cluster.fork(); await once(cluster, 'listening');
  console.log((await get({ port: 8001, host: '127.0.0.1', agent: false })).startsWith('worker'));
  await new Promise(done => cluster.disconnect(done));
  // Child processes.
  console.log((await promisify(execFile)('sh', ['-c', 'echo $0 $1; pwd', 'a', 'b'])).stdout.trim().replace('\n', ' '));
  const cat = spawn('cat'); cat.stdin.end('piped'); let text = '';
  for await (const piece of cat.stdout) text += piece;
  console.log(text);
  const killed = spawn('sleep', ['100']); killed.kill('SIGTERM');
  console.log((await once(killed, 'exit'))[1]);
  // Files, watching, compression, streams, timers, Unix sockets.
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'n-'));
  const watching = new Promise(done => { const w = fs.watch(directory, (kind, name) => { w.close(); done(name); }); });
  fs.writeFileSync(path.join(directory, 'file'), 'x'.repeat(1e6));
  console.log('watched', await watching, fs.statSync(path.join(directory, 'file')).size);
  await promisify(fs.cp)(directory, directory + '2', { recursive: true });
  console.log(fs.readdirSync(directory + '2'));
  console.log(zlib.gunzipSync(zlib.gzipSync(Buffer.alloc(1e6))).length);
  const key = await promisify(crypto.scrypt)('a', 'b', 16); console.log(key.toString('hex').slice(0, 8));
  const unix = net.createServer(c => c.pipe(c)).listen(directory + '/s'); await once(unix, 'listening');
  const client = net.connect(directory + '/s'); client.end('echo');
  let back = ''; for await (const piece of client) back += piece; console.log(back); unix.close();
  const start = process.hrtime.bigint(); await new Promise(done => setTimeout(done, 50));
  console.log(process.hrtime.bigint() - start >= 49000000n, os.cpus().length > 0, os.totalmem() > 0, os.hostname().length > 0);
  console.log(process.memoryUsage().rss > 1e6, process.cpuUsage().user > 0, process.resourceUsage().maxRSS > 1000);
  process.on('SIGUSR2', () => { console.log('signalled'); process.exit(0); });
  process.kill(process.pid, 'SIGUSR2'); setTimeout(() => {}, 1000);
}
