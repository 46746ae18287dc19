//! What is around every page.

use maud::{DOCTYPE, Markup, html};

use crate::{form, service::HOME};

/// The rooms, as the navigation has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Overview,
    Events,
    DeadLetters,
    Users,
}

impl Room {
    const ALL: [Self; 4] = [Self::Overview, Self::Events, Self::DeadLetters, Self::Users];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Events => "Events",
            Self::DeadLetters => "Dead letters",
            Self::Users => "Users",
        }
    }

    pub(crate) fn path(self) -> String {
        let path = match self {
            Self::Overview => "",
            Self::Events => "/events",
            Self::DeadLetters => "/dead-letters",
            Self::Users => "/users",
        };
        form::address(path, &[])
    }
}

/// A page for who is signed in.
pub(crate) fn framed(room: Room, title: &str, csrf: &str, main: &Markup) -> Markup {
    document(
        title,
        &html! {
            a.skip href="#main" { "Skip to the content" }
            header.top {
                a.brand href=(HOME) { (mark()) span { "clerk-sync" } }
                nav aria-label="Pages" {
                    ul {
                        @for each in Room::ALL {
                            li {
                                a href=(each.path()) aria-current=[(each == room).then_some("page")] {
                                    (each.name())
                                }
                            }
                        }
                    }
                }
                div.aside {
                    (theme())
                    form method="post" action=(form::address("/logout", &[])) {
                        (hidden(csrf))
                        button.quiet type="submit" { "Sign out" }
                    }
                }
            }
            main #main tabindex="-1" { (main) }
        },
    )
}

/// A page for anybody.
pub(crate) fn bare(title: &str, main: &Markup) -> Markup {
    document(
        title,
        &html! {
            header.top.alone {
                a.brand href=(HOME) { (mark()) span { "clerk-sync" } }
                div.aside { (theme()) }
            }
            main #main.alone tabindex="-1" { (main) }
        },
    )
}

fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex, nofollow";
                meta name="color-scheme" content="light dark";
                title { (title) " · clerk-sync" }
                link rel="icon" type="image/svg+xml" href=(asset("icon.svg"));
                link rel="stylesheet" href=(asset("console.css"));
                // Before anything is drawn, so that no light page flashes in the dark.
                script src=(asset("theme.js")) {}
                script type="module" src=(asset("console.js")) {}
            }
            body { (body) }
        }
    }
}

/// What a form sends along.
pub(crate) fn hidden(csrf: &str) -> Markup {
    html! { input type="hidden" name="csrf" value=(csrf); }
}

/// What a page has that is not ready: a script asks for it again and again, in its place.
pub(crate) fn again(address: &str) -> Markup {
    html! { p { a.button href=(address) data-again { "Look again" } } }
}

fn asset(name: &str) -> String {
    format!("{HOME}/assets/{name}")
}

/// Works only with scripts, which show it.
fn theme() -> Markup {
    html! {
        button.quiet #theme type="button" hidden {
            svg viewBox="0 0 16 16" width="15" height="15" aria-hidden="true" focusable="false" {
                circle cx="8" cy="8" r="6.5" fill="none" stroke="currentColor" stroke-width="1.5" {}
                path d="M8 1.5a6.5 6.5 0 0 1 0 13z" fill="currentColor" {}
            }
            span.theme-name {}
        }
    }
}

fn mark() -> Markup {
    html! {
        svg.mark viewBox="0 0 24 24" width="22" height="22" aria-hidden="true" focusable="false" {
            circle cx="12" cy="12" r="10.25" fill="none" stroke="currentColor" stroke-width="1.5" {}
            path d="M6.5 12.5 10 16l7.5-8" fill="none" stroke="currentColor" stroke-width="1.75"
                stroke-linecap="round" stroke-linejoin="round" {}
        }
    }
}
