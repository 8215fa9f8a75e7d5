use super::super::tests::for_each_seed;
use super::*;

const EPOCH: u32 = 0xa1b2_c3d4;

/// In the middle of a time slot, and of the life of a secret.
const NOW: Timestamp = seconds(75);

/// Goal: what is hashed, and how, never changes unnoticed: servers behind one address have to agree. The expected bytes
/// come from an implementation of the hash by other means.
#[test]
fn cookies_are_made_as_ever() {
    let mut cookies = Cookies::with_secret(array::from_fn(|n| n as u8));
    let v4 = "07 00 00 00 01 00 00 00 f4 ea 89 ef 80 42 be 22 e1 c6 11 df b1 9f d8 09";
    let v6 = "07 00 00 00 01 00 00 00 86 2b 1b 25 7d cb 8e 08 16 72 67 97 9a a5 ae 6c";
    for (client, expected) in [("192.0.2.1:4000", v4), ("[fe80::1%3]:4000", v6)] {
        let cookie = cookies.issue(addr(client), EPOCH, NOW);
        let hex: Vec<String> = cookie.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex.join(" "), expected);
    }
}

/// Goal: a cookie lives as long as is promised, and not a nanosecond longer; within its life it may be echoed again.
#[test]
fn cookie_lives_for_its_slot_and_the_next() {
    let slot = COOKIE_LIFE_MIN.as_nanos() as u64;
    for issued in [0, 1, slot - 1, slot, 11 * slot - 1] {
        let end = (issued / slot + 2) * slot;
        assert!((COOKIE_LIFE_MIN..=COOKIE_LIFE_MAX).contains(&Duration::from_nanos(end - issued)));
        let mut cookies = Cookies::new(Timestamp(issued)).unwrap();
        let cookie = cookies.issue(client(), EPOCH, Timestamp(issued));
        for now in [issued, issued, issued + slot, end - 1, end - 1] {
            assert_eq!(cookies.verify(client(), EPOCH, &cookie, Timestamp(now)), Ok(()), "{issued} at {now}");
        }
        for now in [end, end + slot, u64::MAX] {
            let verdict = cookies.verify(client(), EPOCH, &cookie, Timestamp(now));
            assert_eq!(verdict, Err(CookieError::Expired), "{issued} at {now}");
        }
    }
}

/// Goal: a cookie is for one address, down to port and scope, and for one epoch.
#[test]
fn cookie_is_foreign_to_everybody_else() {
    let mut cookies = Cookies::new(NOW).unwrap();
    let addrs = [
        "192.0.2.1:4000",
        "192.0.2.2:4000",
        "192.0.2.1:4001",
        "192.0.2.1:41120", // 4000 with its bytes exchanged
        "[fe80::1%1]:4000",
        "[fe80::1%2]:4000",
        "[fe80::1]:4000",
        "[fe80::1%1]:4001",
        "[c000:201::]:4000", // begins with the bytes of the first
    ];
    for issued_to in addrs {
        let cookie = cookies.issue(addr(issued_to), EPOCH, NOW);
        for from in addrs {
            let expected = if from == issued_to { Ok(()) } else { Err(CookieError::Foreign) };
            assert_eq!(cookies.verify(addr(from), EPOCH, &cookie, NOW), expected, "{issued_to} from {from}");
        }
        for epoch in [0, EPOCH + 1, EPOCH.swap_bytes()] {
            assert_eq!(cookies.verify(addr(issued_to), epoch, &cookie, NOW), Err(CookieError::Foreign));
        }
    }
}

/// Goal: one address is one client, however the socket that read it spells it.
#[test]
fn mapped_address_is_the_one_that_it_maps() {
    let mut cookies = Cookies::new(NOW).unwrap();
    let (plain, mapped) = (addr("192.0.2.1:4000"), addr("[::ffff:192.0.2.1]:4000"));
    let cookie = cookies.issue(mapped, EPOCH, NOW);
    assert_eq!(cookie, cookies.issue(plain, EPOCH, NOW));
    assert_eq!(cookies.verify(plain, EPOCH, &cookie, NOW), Ok(()));
    let flow = std::net::SocketAddrV6::new("2001:db8::1".parse().unwrap(), 4000, 9, 0);
    let cookie = cookies.issue(flow.into(), EPOCH, NOW);
    assert_eq!(cookies.verify(addr("[2001:db8::1]:4000"), EPOCH, &cookie, NOW), Ok(()));
}

/// Goal: no bit of a cookie can be changed, those that it is found by included, and noise is never a cookie.
#[test]
fn changed_cookie_is_rejected() {
    let mut cookies = Cookies::new(NOW).unwrap();
    let cookie = cookies.issue(client(), EPOCH, NOW);
    for bit in 0..8 * COOKIE_BYTES {
        let mut bytes = *cookie.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let verdict = cookies.verify(client(), EPOCH, &Cookie::from_bytes(bytes), NOW);
        let expected: &[CookieError] = match bit / 8 {
            0..4 => &[CookieError::Expired, CookieError::FromTheFuture, CookieError::Foreign],
            _ => &[CookieError::Foreign],
        };
        assert!(expected.contains(&verdict.unwrap_err()), "bit {bit}");
    }
    assert_eq!(cookies.verify(client(), EPOCH, &cookie, NOW), Ok(()), "the rejected ones have left nothing behind");
    for_each_seed(|rng| {
        let mut cookies = Cookies::with_secret([7; 16]);
        let noise = Cookie::from_bytes(array::from_fn(|_| rng.u8(..)));
        cookies.verify(client(), rng.u32(..), &noise, Timestamp(rng.u64(..))).unwrap_err();
    });
}

/// Goal: a cookie of another secret is worth nothing; servers that share theirs accept each other's, also one that has
/// been idle since before the last secrets.
#[test]
fn secrets_are_private_unless_they_are_shared() {
    let mut cookies = Cookies::new(NOW).unwrap();
    for mut other in [Cookies::new(NOW).unwrap(), Cookies::with_secret([1; 16])] {
        let cookie = other.issue(client(), EPOCH, NOW);
        assert_eq!(cookies.verify(client(), EPOCH, &cookie, NOW), Err(CookieError::Foreign));
    }
    let other = Cookies::with_secret([2; 16]).issue(client(), EPOCH, NOW);
    for idle_since in [seconds(0), seconds(119), seconds(599)] {
        let (mut issuer, mut judge) = (Cookies::with_secret([1; 16]), Cookies::with_secret([1; 16]));
        let _ = judge.issue(client(), EPOCH, idle_since);
        let cookie = issuer.issue(client(), EPOCH, seconds(1199));
        assert_eq!(judge.verify(client(), EPOCH, &cookie, seconds(1201)), Ok(()), "made with the previous secret");
        assert!(judge.verify(client(), EPOCH, &other, seconds(1201)).is_err());
    }
}

/// Goal: with each rotation there is another secret; the last one still judges what it has made, and nothing newer;
/// older ones are gone, whether time goes by in steps or in a leap.
#[test]
fn rotation_keeps_one_previous_secret() {
    let life = COOKIE_SECRET_LIFE.as_secs();
    let mut cookies = Cookies::new(seconds(0)).unwrap();
    let mut keys = vec![cookies.current.key];
    for n in 1..20 {
        let turn = n * life;
        let cookie = cookies.issue(client(), EPOCH, seconds(turn - 1));
        assert_eq!(cookies.verify(client(), EPOCH, &cookie, seconds(turn + 9)), Ok(()));
        assert_eq!(cookies.previous.as_ref().map(|secret| secret.key), keys.last().copied());
        assert!(!keys.contains(&cookies.current.key), "a new one");
        keys.push(cookies.current.key);

        let retired = Secret { number: (n - 1) as u32, key: keys[keys.len() - 2] };
        let forged = retired.cookie(client(), EPOCH, claimed_slot(&cookie) + 1);
        assert_eq!(cookies.verify(client(), EPOCH, &forged, seconds(turn + 9)), Err(CookieError::Foreign));
    }
    let cookie = cookies.issue(client(), EPOCH, seconds(19 * life + 11));
    let end = seconds(21 * life);
    assert_eq!(cookies.verify(client(), EPOCH, &cookie, end), Err(CookieError::Expired));
    assert!(cookies.previous.is_none(), "nobody has made anything with it that could still be alive");
    assert!(!keys.contains(&cookies.current.key));
}

/// Goal: a cookie of a time to come is none yet, and neither the beginning nor the end of time is a special case.
#[test]
fn slots_do_not_wrap() {
    let cookie = Cookies::with_secret([1; 16]).issue(client(), EPOCH, seconds(20));
    let mut behind = Cookies::with_secret([1; 16]);
    assert_eq!(behind.verify(client(), EPOCH, &cookie, seconds(19)), Err(CookieError::FromTheFuture));
    assert_eq!(behind.verify(client(), EPOCH, &cookie, seconds(20)), Ok(()), "the same one, when its time has come");

    let mut cookies = Cookies::with_secret([1; 16]);
    let end_of_slots = cookies.current.cookie(client(), EPOCH, u32::MAX);
    assert_eq!(cookies.verify(client(), EPOCH, &end_of_slots, seconds(0)), Err(CookieError::FromTheFuture));
    let first = cookies.issue(client(), EPOCH, seconds(0));
    let last = cookies.issue(client(), EPOCH, Timestamp::NEVER);
    assert_eq!(cookies.verify(client(), EPOCH, &last, Timestamp::NEVER), Ok(()));
    assert_eq!(cookies.verify(client(), EPOCH, &first, Timestamp::NEVER), Err(CookieError::Expired));
    assert_eq!(cookies.verify(client(), EPOCH, &end_of_slots, Timestamp::NEVER), Err(CookieError::FromTheFuture));
}

/// Goal: a time that goes backwards stands still: nothing expired comes back to life, and no secret is drawn anew.
#[test]
fn earlier_time_counts_as_the_latest() {
    let mut cookies = Cookies::new(seconds(59)).unwrap();
    let cookie = cookies.issue(client(), EPOCH, seconds(59));
    assert_eq!(cookies.verify(client(), EPOCH, &cookie, seconds(70)), Err(CookieError::Expired));
    let key = cookies.current.key;
    assert_eq!(cookies.verify(client(), EPOCH, &cookie, seconds(59)), Err(CookieError::Expired));
    let late = cookies.issue(client(), EPOCH, seconds(59));
    assert_eq!(cookies.verify(client(), EPOCH, &late, seconds(89)), Ok(()), "issued as if at second 70");
    assert_eq!(cookies.current.key, key);
}

/// Goal: whoever asks leaves nothing behind: there is no heap to grow. And no log shows a secret.
#[test]
fn state_is_small_fixed_and_secret() {
    const { assert!(!std::mem::needs_drop::<Cookies>() && size_of::<Cookies>() <= 80) };
    let cookies = Cookies::with_secret([77; 16]);
    let shown = format!("{cookies:?}");
    assert_eq!(shown, "Cookies { slot: 0, .. }");
}

const fn seconds(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1_000_000_000)
}

fn client() -> SocketAddr {
    addr("192.0.2.1:4000")
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
