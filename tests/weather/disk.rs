//! The disk under `clerk-sync up` without servers.

use std::{path::PathBuf, process::Command, time::Duration};

use tokio::time::sleep;

use crate::{
    harness::{
        clerk::{client, created, post},
        process::run,
        servers::TestDb,
    },
    load::{Delivered, Load, deliver_letter},
    site::{Plan, Shape, Site},
    watch::Outage,
};

/// A small disk, though larger than the logs of queue and tables ever get (16 and 4 MiB).
struct SmallDisk {
    folder: PathBuf,
    is_mounted: bool,
    /// Keeps the folder when nothing could be mounted.
    _folder: tempfile::TempDir,
}

impl SmallDisk {
    /// A file system in memory. Who may not mount one is given a limit on the size of each file
    /// instead, by [`SmallDisk::fill`]: `EFBIG` for `ENOSPC`.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
            .arg(folder.path())
            .output();
        Self {
            is_mounted: mount.is_ok_and(|output| output.status.success()),
            folder: folder.path().to_owned(),
            _folder: folder,
        }
    }

    /// Leaves no room.
    fn fill(&self, site: &Site) {
        if !self.is_mounted {
            // Less than a log grows to, and less than any other event of 512 KiB wants.
            return limit_files(site, "131072:unlimited");
        }
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        let zeros = vec![0; 4096];
        while std::io::Write::write_all(&mut ballast, &zeros).is_ok() {}
    }

    fn empty(&self, site: &Site) {
        if self.is_mounted {
            std::fs::remove_file(self.ballast()).unwrap();
        } else {
            limit_files(site, "unlimited:unlimited");
        }
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

fn limit_files(site: &Site, limit: &str) {
    let limited = Command::new("prlimit")
        .arg(format!("--fsize={limit}"))
        .args(["--pid", &site.ingest().process.id().to_string()])
        .status()
        .unwrap();
    assert!(limited.success());
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount")
                .arg("--lazy")
                .arg(&self.folder)
                .status();
        }
    }
}

/// Queue and tables are on it, as they are by default.
pub(crate) async fn a_full_disk_is_a_503_until_there_is_room_and_loses_nothing() {
    let disk = SmallDisk::new();
    let db = TestDb::sqlite_in(&disk.folder).await;
    let site = Site::open(Plan::on(db, Shape::Embedded).in_folder(&disk.folder)).await;
    let up = site.ingest();
    let load = Load::start(&site.url(), 20);
    sleep(Duration::from_secs(3)).await;
    let mut delivered = load.delivered().await;
    site.applied(&delivered.ids).await;
    let parts: &[&str] = &["queue", "database", "apply"];
    let mut outages = Vec::new();

    // With nobody posting, it must find out by itself that there is room again.
    let outage = Outage::begins(parts, &["cannot be written"]);
    disk.fill(&site);
    let letter = created("user_full", "full@a.example");
    let url = site.url().borrow().clone();
    while post(&client(), &url, &letter).await == 204 {}
    up.watch.shows(503).await;
    assert!(up.said("the queue's file cannot be written") > 0);
    sleep(Duration::from_secs(10)).await;
    disk.empty(&site);
    outages.push(outage.over());
    up.watch.shows(200).await;
    deliver_letter(&site, &letter).await;
    delivered.merge(Delivered {
        ids: [letter.id].into(),
        rows: vec![(
            "user_full".to_owned(),
            "full@a.example".to_owned(),
            Some("U 0".to_owned()),
        )],
        repeated: 0,
    });

    // With everybody posting, some small event or other may still be taken; it does not pass for a
    // recovery.
    let outage = Outage::begins(parts, &["cannot be written"]);
    disk.fill(&site);
    let load = Load::start(&site.url(), 20);
    up.watch.shows(503).await;
    let recoveries = up.said("can be written again");
    sleep(Duration::from_secs(15)).await;
    assert_eq!(
        up.said("can be written again"),
        recoveries,
        "a recovery that was none"
    );
    disk.empty(&site);
    outages.push(outage.over());
    site.shows(200).await;
    let under_load = load.delivered().await;
    assert!(under_load.repeated > 0);
    delivered.merge(under_load);
    site.told(&outages).await;
    site.audit(&delivered).await;
}

pub(crate) async fn a_second_process_on_the_same_file_is_refused_and_does_not_disturb() {
    let db = TestDb::sqlite().await;
    let site = Site::open(Plan::on(db, Shape::Embedded)).await;
    let load = Load::start(&site.url(), 30);
    for _ in 0..3 {
        let (status, _, stderr) = run("clerk-sync", &["up"], &site.ingest().env).await;
        assert_eq!(status.code(), Some(1), "{stderr}");
        let file = site.queue_file();
        let file = file.to_str().unwrap();
        assert!(
            stderr.contains(file) && stderr.contains("is in use"),
            "{stderr}"
        );
    }
    let delivered = load.delivered().await;
    assert_eq!(delivered.repeated, 0, "no request was refused");
    site.told(&[]).await;
    site.audit(&delivered).await;
}
