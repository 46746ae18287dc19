//! Bodies as Clerk sends them: the shapes of real deliveries, with every field they have.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::person::{Address, Person};

/// `data` of `user.created` and `user.updated`, and the user inside a session.
pub(crate) fn user(person: &Person) -> Value {
    let phones = person.phone.iter().map(|phone| self::phone(phone, person));
    let mut user = json!({
        "created_at": person.created_at,
        "email_addresses": person.addresses.iter().map(address).collect::<Vec<_>>(),
        "external_id": person.external_id,
        "first_name": person.first_name,
        "id": person.clerk_id,
        "image_url": person.image_url,
        "last_active_at": person.last_sign_in_at.unwrap_or(person.created_at),
        "last_name": person.last_name,
        "last_sign_in_at": person.last_sign_in_at,
        "object": "user",
        "password_enabled": person.phone.is_none(),
        "phone_numbers": phones.collect::<Vec<_>>(),
        "primary_email_address_id": person.primary,
        "primary_phone_number_id": person.phone.as_ref().map(|(id, _)| id),
        "public_metadata": { "edition": person.edition },
        "unsafe_metadata": { "newsletter": person.edition.is_multiple_of(2) },
        "updated_at": person.updated_at,
    });
    let fields = user
        .as_object_mut()
        .expect("the literal above is an object");
    fields.extend(UNPROJECTED.clone());
    user
}

/// What every user here has alike.
static UNPROJECTED: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let fields = json!({
        "backup_code_enabled": false,
        "banned": false,
        "bypass_client_trust": false,
        "create_organization_enabled": true,
        "create_organizations_limit": null,
        "delete_self_enabled": true,
        "enterprise_accounts": [],
        "external_accounts": [],
        "has_image": false,
        "legal_accepted_at": null,
        "locale": null,
        "locked": false,
        "lockout_expires_in_seconds": null,
        "mfa_disabled_at": null,
        "mfa_enabled_at": null,
        "passkeys": [],
        "password_last_updated_at": null,
        "primary_web3_wallet_id": null,
        "private_metadata": {},
        "profile_image_url": "https://www.gravatar.com/avatar?d=mp",
        "saml_accounts": [],
        "totp_enabled": false,
        "two_factor_enabled": false,
        "username": null,
        "verification_attempts_remaining": 100,
        "web3_wallets": [],
    });
    let Value::Object(fields) = fields else {
        unreachable!("the literal above is an object");
    };
    fields
});

fn address(address: &Address) -> Value {
    let verification = json!({
        "attempts": 1,
        "expire_at": address.created_at + 600_000,
        "object": "verification_otp",
        "status": if address.verified { "verified" } else { "unverified" },
        "strategy": "email_code",
    });
    json!({
        "created_at": address.created_at,
        "email_address": address.email,
        "id": address.id,
        "linked_to": [],
        "matches_sso_connection": false,
        "object": "email_address",
        "reserved": false,
        "updated_at": address.created_at + 4,
        "verification": verification,
    })
}

fn phone((id, number): &(String, String), person: &Person) -> Value {
    json!({
        "backup_codes": [],
        "created_at": person.created_at,
        "default_second_factor": false,
        "id": id,
        "linked_to": [],
        "object": "phone_number",
        "phone_number": number,
        "reserved": false,
        "reserved_for_second_factor": false,
        "updated_at": person.created_at,
        "verification": {
            "attempts": 1,
            "expire_at": person.created_at + 600_000,
            "object": "verification_otp",
            "status": "verified",
            "strategy": "phone_code",
        },
    })
}

/// `data` of `user.deleted`: no `updated_at`, and `external_id` only where there was one.
pub(crate) fn deleted(person: &Person) -> Value {
    let mut data = json!({ "deleted": true, "id": person.clerk_id, "object": "user" });
    if let Some(external_id) = &person.external_id {
        data["external_id"] = external_id.as_str().into();
    }
    data
}

/// `data` of `session.*`: with the whole user, or with `null`.
pub(crate) fn session(id: &str, status: &str, now: i64, person: &Person, whole: bool) -> Value {
    json!({
        "abandon_at": now + 2_592_000_000,
        "actor": null,
        "client_id": id.replace("sess_", "client_"),
        "created_at": now,
        "expire_at": now + 604_800_000,
        "id": id,
        "last_active_at": now,
        "object": "session",
        "status": status,
        "updated_at": now + 9,
        "user": whole.then(|| user(person)),
        "user_id": person.clerk_id,
    })
}

/// `data` of `organization.created`.
pub(crate) fn organization(id: &str, now: i64) -> Value {
    json!({
        "admin_delete_enabled": true,
        "created_at": now,
        "has_image": false,
        "id": id,
        "image_url": "https://img.clerk.com/organization",
        "logo_url": null,
        "max_allowed_memberships": 25,
        "name": "Harbour Labs",
        "object": "organization",
        "private_metadata": {},
        "public_metadata": {},
        "role_set_key": null,
        "slug": id.to_lowercase(),
        "updated_at": now,
    })
}

/// `data` of a type that nobody knows yet, about a user that somebody does.
pub(crate) fn passkey(id: &str, now: i64, clerk_id: Option<&str>) -> Value {
    json!({
        "attested": true,
        "enrolled_at": now,
        "id": id,
        "object": "user_passkey",
        "updated_at": now,
        "user_id": clerk_id,
    })
}

/// The envelope, in bytes. `timestamp` is in the instance's own unit.
pub(crate) fn envelope(
    event_type: &str,
    data: &Value,
    timestamp: i64,
    instance_id: &str,
    by_api: bool,
) -> Vec<u8> {
    let (client_ip, user_agent) = if by_api {
        ("", "clerk/clerk-sdk-go@v3.0.0")
    } else {
        (
            "198.51.100.23",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
        )
    };
    let envelope = json!({
        "data": data,
        "event_attributes": {
            "http_request": { "client_ip": client_ip, "user_agent": user_agent },
        },
        "instance_id": instance_id,
        "object": "event",
        "timestamp": timestamp,
        "type": event_type,
    });
    envelope.to_string().into_bytes()
}
