#!/usr/bin/env bash
# Boots a systemd of its own: boot.sh CGROUP DIRECTORY, as root.
# CGROUP is a fresh directory of the cgroup2 hierarchy, DIRECTORY an empty one. The new system
# has this machine's programs, and an own of everything else: what it writes stays in memory,
# it has a network with nothing but a loopback, and it ends with this process.
set -euo pipefail

if [ $# = 2 ]; then
  echo $$ >"$1/cgroup.procs"
  # A mount namespace that tells this machine nothing, and processes that end with this one.
  exec setpriv --pdeathsig KILL unshare --kill-child --pid --fork --mount --propagation private \
    --uts --ipc --net --cgroup bash "$0" "$2"
fi

# All that is written goes to memory: / is this machine's, with a layer of its own on top.
mount -t tmpfs -o mode=755 tmpfs "$1"
root=$1/root
mkdir "$root" "$1/upper" "$1/work"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$root"

hostname booted
ip link set lo up

mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
# In a cgroup namespace this is the one we are in, and what is below.
mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
# systemd-tmpfiles empties /tmp at boot: it must not be this machine's.
for directory in run tmp var/tmp var/log dev; do
  mount -t tmpfs -o mode=755 tmpfs "$root/$directory"
done
chmod 1777 "$root/tmp" "$root/var/tmp"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

: >"$root/etc/fstab"
: >"$root/etc/machine-id"
# What is enabled on this machine is not wanted here; nor is what sets a machine up.
rm -rf "$root"/etc/systemd/system/*
for unit in systemd-{sysctl,modules-load,remount-fs,binfmt,hwdb-update}.service \
  systemd-{udevd,udev-trigger}.service systemd-udevd-{control,kernel}.socket; do
  ln -s /dev/null "$root/etc/systemd/system/$unit"
done
# Under load calcd writes more lines than the journal takes from a service by default.
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nRateLimitIntervalSec=0\n' >"$root/etc/systemd/journald.conf.d/test.conf"

mkdir -p "$root/srv/calcd" # for the checkout
mkdir "$root/old"
cd "$root"
pivot_root . old
umount --lazy /old
# As container managers leave it: what one process mounts, such as a service's credentials, is
# there for the others too.
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=basic.target --show-status=no </dev/null
