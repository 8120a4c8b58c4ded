#!/usr/bin/env bash
# Starts one peer's server in a temporary directory on 127.0.0.1, runs `peers`
# against it, stops it, and appends a JSON line per test to $OUT.
#
#   run.sh build [PEER:MODE ...] build peers, and of the servers those that are wanted (all without any)
#   run.sh versions              what is installed
#   run.sh PEER:MODE [...]       measure; `run.sh all` for every pair below
#
# Environment: WORK (scratch directory, default: a new mktemp -d), OUT (default
# $WORK/results.jsonl), TESTS, N, RATES, SECS_AT_RATE, LIMIT, LOCK (a lock file
# held during each measurement; none by default), NOLAT=1. `cargo xtask compare`
# sets those and SCHEDULER_BIN_DIR (scheduler-server and load, built for release) and
# SCHEDULER_XTASK, which starts Kafka and TiDB.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
WORK=${WORK:-$(mktemp -d)}
BIN=$WORK/bin
OUT=${OUT:-$WORK/results.jsonl}
TESTS=${TESTS:-warm,submit,drain,pipe,lat}
RATES=${RATES:-1000,5000}
SECS_AT_RATE=${SECS_AT_RATE:-20}
LIMIT=${LIMIT:-60}
H=127.0.0.1
KAFKA_VERSION=${KAFKA_VERSION:-4.1.0}
TEMPORAL_VERSION=${TEMPORAL_VERSION:-v1.32.1}
NATS_VERSION=${NATS_VERSION:-v2.15.2}
KLIBS=${KLIBS:-$WORK/kafka-libs}
mkdir -p "$BIN" "$WORK/run"

ALL="workload-scheduler:embedded workload-scheduler:cluster kafka-share:default kafka-share:fsync kafka-raw:default kafka-raw:fsync
nats:default nats:always rabbitmq:quorum redis-streams:everysec redis-streams:always
faktory:rdb faktory:aof-always river:sync-on asynq:everysec asynq:always
beanstalkd:f0 beanstalkd:f50 temporal-act:pg temporal:pg"

build() {
  local wanted=" ${*:-$ALL} " missing=()
  ( cd "$HERE" && go build -o "$BIN/peers" . )
  case $wanted in *" faktory:"*) ( cd "$HERE" && go build -o "$BIN/faktory" github.com/contribsys/faktory/cmd/faktory ) ;; esac
  case $wanted in *" nats:"*) [ -x "$BIN/nats-server" ] || GOBIN=$BIN go install github.com/nats-io/nats-server/v2@"$NATS_VERSION" ;; esac
  if [[ $wanted == *" temporal"* && ! -x "$BIN/server" ]]; then
    GOBIN=$BIN go install go.temporal.io/server/cmd/server@"$TEMPORAL_VERSION" || echo "temporal: not built" >&2
    GOBIN=$BIN go install go.temporal.io/server/cmd/tools/sql@"$TEMPORAL_VERSION" || true
  fi
  if [[ $wanted == *" kafka-"* && ! -d "$KLIBS" ]]; then
    mvn -q -f "$HERE/kafka/pom.xml" -Dkafka.version="$KAFKA_VERSION" dependency:copy-dependencies -DoutputDirectory="$KLIBS"
  fi
  if [[ $wanted == *" kafka-"* ]]; then
    mkdir -p "$WORK/kclasses"
    javac -cp "$KLIBS/*" -d "$WORK/kclasses" "$HERE/kafka/src/KafkaPeer.java"
  fi
  [[ $wanted == *" redis-"* || $wanted == *" asynq:"* || $wanted == *" faktory:"* ]] && ! command -v redis-server >/dev/null && missing+=(redis-server)
  [[ $wanted == *" rabbitmq:"* ]] && ! command -v rabbitmq-server >/dev/null && missing+=(rabbitmq-server)
  [[ $wanted == *" beanstalkd:"* ]] && ! command -v beanstalkd >/dev/null && missing+=(beanstalkd)
  [[ $wanted == *" river:"* || $wanted == *" temporal"* ]] && ! command -v psql >/dev/null && missing+=(postgresql)
  if ((${#missing[@]})); then
    echo "missing: apt-get install -y --no-install-recommends ${missing[*]}" >&2
    return 1
  fi
}

versions() {
  "$BIN/nats-server" --version || true
  redis-server --version | cut -c1-30
  beanstalkd -v
  dpkg-query -W -f '${Package} ${Version}\n' rabbitmq-server erlang-base postgresql-15 redis-server beanstalkd 2>/dev/null || true
  ls "$KLIBS" | grep -E '^kafka(-clients|_2)' || true
  ( cd "$HERE" && go list -m github.com/contribsys/faktory github.com/nats-io/nats.go github.com/rabbitmq/amqp091-go github.com/redis/go-redis/v9 \
      github.com/riverqueue/river github.com/hibiken/asynq go.temporal.io/sdk github.com/beanstalkd/go-beanstalk github.com/jackc/pgx/v5 )
  go version -m "$BIN/server" 2>/dev/null | awk '$1=="mod"' || true
  go version; java -version 2>&1 | head -1; uname -r
}

ROOTS=""   # server root pids
EXTRA=""   # commands to stop what is not stopped by its root pid
wait_port() { for _ in $(seq 1 300); do (exec 3<>"/dev/tcp/$H/$1") 2>/dev/null && return 0; sleep 0.2; done; echo "port $1 did not open" >&2; return 1; }

stop_all() {
  set +e
  [ -n "$EXTRA" ] && eval "$EXTRA"
  for p in $ROOTS; do kill "$p" 2>/dev/null; done
  for p in $ROOTS; do for _ in $(seq 1 100); do kill -0 "$p" 2>/dev/null || break; sleep 0.1; done; kill -9 "$p" 2>/dev/null; done
  ROOTS=""; EXTRA=""
  set -e
}
trap stop_all EXIT

start_kafka() { # mode
  local extra=""
  [ "$1" = fsync ] && extra="log.flush.interval.messages=1"
  cat > "$D/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@$H:39093
listeners=PLAINTEXT://$H:39092,CONTROLLER://$H:39093
advertised.listeners=PLAINTEXT://$H:39092
controller.listener.names=CONTROLLER
log.dirs=$D/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=8
group.initial.rebalance.delay.ms=0
group.share.record.lock.duration.ms=60000
$extra
P
  java -cp "$KLIBS/*" kafka.tools.StorageTool format -t "$(java -cp "$KLIBS/*" kafka.tools.StorageTool random-uuid 2>/dev/null)" \
    -c "$D/server.properties" --feature share.version=1 > "$D/format.log" 2>&1
  java -Xms1g -Xmx1g -cp "$KLIBS/*" kafka.Kafka "$D/server.properties" > "$D/server.log" 2>&1 &
  ROOTS="$!"; wait_port 39092; ADDR=$H:39092
}
start_redis() { # mode port
  local p=$2
  redis-server --port "$p" --bind $H --dir "$D" --save "" --appendonly yes --appendfsync "$1" --daemonize no > "$D/redis.log" 2>&1 &
  ROOTS="$!"; wait_port "$p"; ADDR=$H:$p
}
start_pg() {
  local pgb; pgb=$(dirname "$(dpkg -L postgresql-15 | grep "/bin/postgres$")")
  chown -R postgres "$D"; chmod 755 "$WORK" "$WORK/run"
  runuser -u postgres -- $pgb/initdb -D "$D/pg" -A trust -U postgres > "$D/initdb.log" 2>&1
  cat >> "$D/pg/postgresql.conf" <<P
listen_addresses='$H'
port=35432
unix_socket_directories='$D'
fsync=on
synchronous_commit=on
shared_buffers=1GB
max_wal_size=4GB
max_connections=200
P
  runuser -u postgres -- $pgb/postgres -D "$D/pg" > "$D/pg.log" 2>&1 &
  local w=$!
  wait_port 35432
  ROOTS="$(head -1 "$D/pg/postmaster.pid")"
  EXTRA="kill -INT $ROOTS; wait $w"
}

run_one() { # peer:mode
  local peer=${1%%:*} mode=${1##*:} name args=() n tests=$TESTS
  D=$WORK/run/$peer-$mode; rm -rf "$D"; mkdir -p "$D"
  name=$peer; n=1000000
  case $peer in
    workload-scheduler)
      local bin=${SCHEDULER_BIN_DIR:?the directory of scheduler-server and load} more=() first="" down=""
      if [ "$mode" = cluster ]; then
        # Tasks are acknowledged by Kafka as they are for kafka-share and kafka-raw; every server is charged.
        "${SCHEDULER_XTASK:?the program that starts Kafka and TiDB}" services up --dir "$D/services" > "$D/services.env" 2> "$D/services.log"
        eval "$(grep '^export ' "$D/services.env")"
        mysql_url="$SCHEDULER_TEST_TIDB/test"
        more=(--kafka "$SCHEDULER_TEST_KAFKA" --tidb "$mysql_url" --cluster-secret compare-compare-compare)
        first=$(sed -n 's/^pid=//p' "$D"/services/*.process | tr '\n' ' ')
        down="'$SCHEDULER_XTASK' services down --wipe --dir '$D/services' >/dev/null"
      fi
      "$bin/scheduler-server" --data "$D/data" --deployer none --http $H:38080 --grpc $H:35050 "${more[@]}" > "$D/server.log" 2>&1 &
      # It lets go of its shards before what they are kept in goes away.
      EXTRA="kill $!; wait $!; $down"
      ROOTS="$! $first"; wait_port 35050; ADDR=$H:35050
      tests=$TESTS,http
      args=(-cmd "'$bin/load' --server http://$ADDR --http http://$H:38080 --partitions 4 lines" -name "$peer"); name=external ;;
    kafka-share|kafka-raw)
      start_kafka "$mode"
      args=(-cmd "java -Xms1g -Xmx2g -cp '$KLIBS/*:$WORK/kclasses' KafkaPeer ${peer#kafka-} $ADDR ${LINGER:-5}" -name "$peer"); name=external
      [ "$mode" = fsync ] && n=200000 ;;
    nats)
      printf 'listen: "%s:34222"\njetstream { store_dir: "%s", max_file_store: 50GB %s }\n' $H "$D/js" \
        "$([ "$mode" = always ] && echo ', sync_interval: always')" > "$D/nats.conf"
      "$BIN/nats-server" -c "$D/nats.conf" > "$D/server.log" 2>&1 & ROOTS=$!; wait_port 34222; ADDR=$H:34222
      [ "$mode" = always ] && n=100000 ;;
    rabbitmq)
      chown rabbitmq "$D"; chmod 755 "$WORK" "$WORK/run"
      printf 'listeners.tcp.default = %s:35672\ndistribution.listener.interface = %s\nloopback_users.guest = true\n' $H $H > "$D/rabbitmq.conf"
      echo '[].' > "$D/plugins"; chown -R rabbitmq "$D"
      env RABBITMQ_CONFIG_FILE="$D/rabbitmq.conf" RABBITMQ_MNESIA_BASE="$D/mnesia" RABBITMQ_LOG_BASE="$D/log" RABBITMQ_NODENAME=peers@localhost \
        RABBITMQ_DIST_PORT=35673 RABBITMQ_ENABLED_PLUGINS_FILE="$D/plugins" RABBITMQ_PID_FILE="$D/pid" HOME="$D" \
        ERL_EPMD_ADDRESS=$H ERL_EPMD_PORT=34369 RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" \
        runuser -u rabbitmq -- "$(dpkg -L rabbitmq-server | grep "lib/rabbitmq/bin/rabbitmq-server$")" > "$D/server.log" 2>&1 &
      ROOTS=$!; wait_port 35672; sleep 5
      EXTRA="kill $(cat "$D/pid"); sleep 4; ERL_EPMD_PORT=34369 epmd -kill >/dev/null 2>&1"
      ADDR=$H:35672; n=${RABBIT_N:-300000} ;;
    redis-streams) start_redis "$mode" 36379 ;;
    asynq) start_redis "$mode" 36380; n=200000 ;;
    faktory)
      # default: faktory starts its own redis with RDB snapshots (save 120 1 / 30 5);
      # aof-always: a redis of ours already listens on its socket.
      if [ "$mode" = aof-always ]; then
        mkdir -p "$D/db"
        redis-server --port 0 --unixsocket "$D/db/redis.sock" --dir "$D/db" --save "" --appendonly yes --appendfsync always > "$D/redis.log" 2>&1 &
        ROOTS=$!; sleep 0.5
      fi
      mkdir -p "$D/conf"
      HOME=$D FAKTORY_SKIP_PASSWORD=1 "$BIN/faktory" -b $H:37419 -w $H:37420 -e development > "$D/server.log" 2>&1 &
      ROOTS="$ROOTS $!"; wait_port 37419; ADDR=$H:37419; n=200000 ;;
    river)
      start_pg; sleep 1; psql -h $H -p 35432 -U postgres -qc 'create database bench'
      ADDR="postgres://postgres@$H:35432/bench?sslmode=disable"; n=300000 ;;
    beanstalkd)
      beanstalkd -l $H -p 31300 -b "$D" "-f${mode#f}" -s 104857600 > "$D/server.log" 2>&1 & ROOTS=$!; wait_port 31300; ADDR=$H:31300
      [ "$mode" = f0 ] && n=100000 ;;
    temporal|temporal-act)
      start_pg; sleep 1
      temporal_up; n=${TEMPORAL_N:-20000}; args+=(-warmn 1000) ;;
    *) echo "unknown peer $peer" >&2; return 1 ;;
  esac
  n=${N:-$n}
  local pids; pids=$(echo $ROOTS | tr ' ' ',')
  echo "== $peer $mode n=$n pids=$pids $(date -u +%T) load $(cut -d' ' -f1-3 /proc/loadavg)" >&2
  local lock=(); [ -n "${LOCK:-}" ] && lock=(flock "$LOCK")
  "${lock[@]}" timeout "${CAP:-420}" "$BIN/peers" "$name" -addr "$ADDR" -mode "$mode" -pids "$pids" -tests "$tests" -n "$n" -rates "$RATES" \
     -secs "$SECS_AT_RATE" -limit "$LIMIT" "${args[@]}" | tee -a "$OUT" || echo "$peer $mode failed" >&2
  du -sm "$D" 2>/dev/null | awk '{print "   directory MB:", $1}' >&2
  stop_all
  [ -n "${KEEP:-}" ] || rm -rf "$D"
}

temporal_up() {
  local src; src=$(go list -m -f '{{.Dir}}' go.temporal.io/server@"$TEMPORAL_VERSION" 2>/dev/null)
  [ -n "$src" ] || src=$(go mod download -json go.temporal.io/server@"$TEMPORAL_VERSION" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
  local sql="$BIN/sql --ep $H -p 35432 -u postgres --pw x --pl postgres12"
  local s=$src/schema/postgresql/v12
  { $sql --db temporal create-database; $sql --db temporal setup-schema -v 0.0; $sql --db temporal update-schema -d "$s/temporal/versioned"
    $sql --db temporal_visibility create-database; $sql --db temporal_visibility setup-schema -v 0.0
    $sql --db temporal_visibility update-schema -d "$s/visibility/versioned"; } > "$D/schema.log" 2>&1
  mkdir -p "$D/config"
  sed -e "s/@H@/$H/g" "$HERE/temporal.yaml" > "$D/config/development.yaml"
  cp "$HERE/temporal-dynamic.yaml" "$D/config/dynamic.yaml"
  ( cd "$D" && exec "$BIN/server" --root "$D" --config config --env development --allow-no-auth start ) > "$D/temporal.log" 2>&1 &
  local t=$!
  EXTRA="kill $t; wait $t; $EXTRA"
  ROOTS="$ROOTS $t"; wait_port 37233; ADDR=$H:37233
  sleep 5
  "$BIN/peers" temporal-namespace -addr "$ADDR"
  sleep 12
}

case "${1:-}" in
  build) shift; build "$@" ;;
  versions) versions ;;
  "" ) sed -n 2,14p "$0" ;;
  all) for x in $ALL; do run_one "$x"; done ;;
  *) for x in "$@"; do run_one "$x"; done ;;
esac
