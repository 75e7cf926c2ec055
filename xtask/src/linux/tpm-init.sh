#!/bin/busybox sh
# The first process of a guest with a TPM: extends, seals, unseals and quotes by tpm2-tools, is moved in
# between, and powers off.
export PATH=/usr/bin:/bin LD_LIBRARY_PATH=/lib HOME=/tmp TPM2TOOLS_TCTI=device:/dev/tpmrm0
bb=/bin/busybox
$bb --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
cd /tmp
end() { echo "guest: $*"; sleep 1; poweroff -f; sleep 60; }
fail() { cat out 2>/dev/null; end "FAILED: $*"; }
run() { "$@" >out 2>&1 || fail "$*"; }
pcr() { cat /sys/class/tpm/tpm0/pcr-sha256/"$1" | tr A-F a-f; }
[ -c /dev/tpmrm0 ] || fail "no TPM"
zeros=$(printf %064d 0)

# A PCR: the new value is the digest of the old one and what was extended, and the kernel sees it.
[ "$(pcr 16)" = "$zeros" ] || fail "PCR 16 is not new"
run tpm2 pcrextend 16:sha256=$zeros
expected=$(head -c 64 /dev/zero | sha256sum | cut -d' ' -f1)
[ "$(pcr 16)" = "$expected" ] || fail "PCR 16 is $(pcr 16), not $expected"
echo "guest: extended PCR 16"
[ "$(pcr 10)" != "$zeros" ] || fail "IMA measured nothing"
echo "guest: IMA extended PCR 10"

# A secret that opens while PCR 16 has this value.
printf secret >secret
run tpm2 createprimary -C o -G ecc -c primary.ctx
run tpm2 createpolicy --policy-pcr -l sha256:16 -L policy
run tpm2 create -C primary.ctx -L policy -i secret -u sealed.pub -r sealed.priv
run tpm2 load -C primary.ctx -u sealed.pub -r sealed.priv -c sealed.ctx
run tpm2 unseal -c sealed.ctx -p pcr:sha256:16 -o opened
cmp -s secret opened || fail "another secret came back"
echo "guest: sealed and unsealed"

# A quote, which verifies with its nonce and with no other.
run tpm2 create -C primary.ctx -G ecc256:ecdsa-sha256:null -u ak.pub -r ak.priv \
    -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign'
run tpm2 load -C primary.ctx -u ak.pub -r ak.priv -c ak.ctx
run tpm2 readpublic -c ak.ctx -f pem -o ak.pem
run tpm2 quote -c ak.ctx -l sha256:0,10,16 -q abcd -m quote.msg -s quote.sig -o quote.pcrs -g sha256
run tpm2 checkquote -u ak.pem -m quote.msg -s quote.sig -f quote.pcrs -g sha256 -q abcd
tpm2 checkquote -u ak.pem -m quote.msg -s quote.sig -f quote.pcrs -g sha256 -q dcba >out 2>&1 && fail "a quote with another nonce"
echo "guest: quoted and verified"

# Suspended and resumed elsewhere: a session that is under way, a context that was saved, and PCRs are as they were.
run tpm2 startauthsession --policy-session -S session.ctx
run tpm2 policypcr -S session.ctx -l sha256:16
echo "guest: suspend me"
read -r _ </dev/console
run tpm2 unseal -c sealed.ctx -p session:session.ctx -o opened
cmp -s secret opened || fail "another secret came back after the move"
[ "$(pcr 16)" = "$expected" ] || fail "PCR 16 is $(pcr 16) after the move, not $expected"
run tpm2 flushcontext session.ctx
echo "guest: unsealed with a session from before the move"

# And what the PCR no longer allows stays shut.
run tpm2 pcrextend 16:sha256=$zeros
tpm2 unseal -c sealed.ctx -p pcr:sha256:16 >out 2>&1 && fail "unsealed with another PCR"
end "verdict: passed"
