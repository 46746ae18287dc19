//! Users that are made up, with every field that Clerk sends.

use serde_json::{Value, json};

const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const FIRST_NAMES: [&str; 7] = ["Maren", "Tomasz", "Zoë", "李", "Ελένη", "Amara", "João"];
const LAST_NAMES: [&str; 6] = [
    "Holt-Aas",
    "Zieliński",
    "O'Neill",
    "van der Berg",
    "小龍",
    "Okafor",
];

/// The user with this number, who signed up at this time (in milliseconds).
pub(crate) fn user(number: u64, created_at: i64) -> Value {
    let id = id("user_", number);
    let email_id = self::id("idn_", number);
    let at = usize::try_from(number % 42).expect("below 42");
    json!({
        "backup_code_enabled": false,
        "banned": false,
        "bypass_client_trust": false,
        "create_organization_enabled": true,
        "create_organizations_limit": null,
        "created_at": created_at,
        "delete_self_enabled": true,
        "email_addresses": [email(&email_id, &format!("user{number}@people.example"), created_at)],
        "enterprise_accounts": [],
        "external_accounts": [],
        "external_id": null,
        "first_name": FIRST_NAMES[at % FIRST_NAMES.len()],
        "has_image": false,
        "image_url": format!("https://img.clerk.com/{id}"),
        "last_active_at": created_at,
        "last_name": LAST_NAMES[at % LAST_NAMES.len()],
        "last_sign_in_at": created_at,
        "legal_accepted_at": null,
        "locale": "en-GB",
        "locked": false,
        "lockout_expires_in_seconds": null,
        "mfa_disabled_at": null,
        "mfa_enabled_at": null,
        "object": "user",
        "passkeys": [],
        "password_enabled": true,
        "password_last_updated_at": created_at,
        "phone_numbers": [],
        "primary_email_address_id": email_id,
        "primary_phone_number_id": null,
        "primary_web3_wallet_id": null,
        "private_metadata": {},
        "profile_image_url": format!("https://www.gravatar.com/avatar/{number}?d=mp"),
        "public_metadata": {},
        "saml_accounts": [],
        "totp_enabled": false,
        "two_factor_enabled": false,
        "unsafe_metadata": {},
        "updated_at": created_at + 31,
        "username": null,
        "verification_attempts_remaining": 100,
        "web3_wallets": [],
        "id": id,
    })
}

/// Takes the given fields over; `email` stands for a primary, verified address.
pub(crate) fn describe(user: &mut Value, fields: &Value) {
    for (name, value) in fields.as_object().into_iter().flatten() {
        if let ("email", Some(address)) = (name.as_str(), value.as_str()) {
            let created_at = user["created_at"].as_i64().unwrap_or(0);
            let id = user["primary_email_address_id"].as_str().unwrap_or("idn_0");
            user["email_addresses"] = json!([email(id, address, created_at)]);
        } else {
            user[name] = value.clone();
        }
    }
}

fn email(id: &str, address: &str, created_at: i64) -> Value {
    json!({
        "created_at": created_at,
        "email_address": address,
        "id": id,
        "linked_to": [],
        "matches_sso_connection": false,
        "object": "email_address",
        "reserved": false,
        "updated_at": created_at,
        "verification": {
            "attempts": 1,
            "expire_at": created_at + 600_000,
            "object": "verification_otp",
            "status": "verified",
            "strategy": "email_code",
        },
    })
}

/// 27 characters that say nothing of the order in which they were made, the same for a number.
fn id(prefix: &str, number: u64) -> String {
    let mut id = prefix.to_owned();
    let mut state = number;
    for _ in 0..27 {
        // SplitMix64, whose steps are bijections: numbers that differ have ids that do.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let letter = usize::try_from((mixed ^ (mixed >> 31)) % 62).expect("below 62");
        id.push(char::from(LETTERS[letter]));
    }
    id
}
