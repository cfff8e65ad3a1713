# Pid 1 of the unikernel under mixed load: starts nginx, PostgreSQL and Redis as its children, says every 15 seconds how
# many processes, descriptors and free memory there are, has the servers reload, save and rotate, and ends them on SIGTERM.
export PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
cd /tmp
mkdir -p www /var/log/nginx /var/lib/nginx /var/run/postgresql redis
chown postgres /var/run/postgresql /data
printf 'small\n' > www/small.html
head -c 100000 /dev/urandom | base64 -w 76 > www/middle.txt
head -c 8000000 /dev/zero > www/large.bin
openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -days 2 -subj /CN=localhost 2>/dev/null
cat > nginx.conf <<'N'
worker_processes 2; daemon off; pid /tmp/nginx.pid; error_log /tmp/nginx.log notice;
events { worker_connections 512; }
http { access_log /tmp/access.log; gzip on; gzip_types text/plain; types { text/plain txt; text/html html; }
server { listen 80; listen 443 ssl; ssl_certificate /tmp/c.pem; ssl_certificate_key /tmp/k.pem; root /tmp/www; }
server { listen 81; location / { proxy_pass http://127.0.0.1:80; } } }
N
as_postgres="setpriv --reuid postgres --regid postgres --clear-groups"
[ -d /data/pg ] || $as_postgres initdb -D /data/pg --no-locale -E UTF8 -A trust >/dev/null || exit 1
echo 'host all all 0.0.0.0/0 trust' >> /data/pg/pg_hba.conf
$as_postgres postgres -D /data/pg -c listen_addresses='*' -c max_wal_size=96MB -c checkpoint_timeout=60 -c log_checkpoints=off \
  -c autovacuum_naptime=15 2>postgres.log & postgres=$!
redis-server --bind 0.0.0.0 --protected-mode no --dir /tmp/redis --appendonly yes --save 60 1 --logfile /tmp/redis.log \
  --auto-aof-rewrite-min-size 4mb & redis=$!
nginx -c /tmp/nginx.conf & nginx=$!

stop() {
  kill -QUIT $nginx; wait $nginx; echo "nginx ended with $?"
  kill -TERM $redis; wait $redis; echo "redis ended with $?"
  kill -INT $postgres; wait $postgres; echo "postgres ended with $?"
  sed 's/^/nginx.log: /' nginx.log | grep -E '\[(warn|error|crit|alert|emerg)\]|exited on signal' | grep -v 'buffered to a temporary file'
  sed 's/^/redis.log: /' redis.log | grep -E ' # ' |
    grep -vE 'overcommit|oO0|ready to exit|Redis version|Configuration loaded|Server initialized|User requested shutdown|SIGTERM'
  sed 's/^/postgres.log: /' postgres.log | grep -E 'FATAL|PANIC|WARNING|terminated by signal' | grep -v 'connection to client lost'
  exit 0
}
trap stop TERM

turn=0
while :; do
  sleep 15 & wait $!
  turn=$((turn + 1))
  set -- /proc/[0-9]*/fd/*; descriptors=$#
  set -- /proc/[0-9]*; processes=$#
  while read -r name value unit; do
    case $name in MemAvailable:) available=$value;; Cached:) cached=$value;; esac
  done < /proc/meminfo
  echo "inside $processes $descriptors $available $cached"
  [ $((turn % 8)) = 0 ] && kill -HUP $nginx
  [ $((turn % 8)) = 2 ] && { mv access.log access.old; kill -USR1 $nginx; }
  [ $((turn % 8)) = 4 ] && redis-cli bgrewriteaof >/dev/null
  [ $((turn % 8)) = 6 ] && kill -HUP $postgres
done
