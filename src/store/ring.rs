//! The newest records, in a file that is mapped into memory: what is copied there survives the end of this process, however
//! sudden, and costs its publisher no system call. From here they go to `database` in batches.
//!
//! One thread at a time writes ([`Ring::append`], under the broker's lock), one reads and frees ([`Ring::records`],
//! [`Ring::free`], the keeper's). Positions count bytes from the beginning of time; the place in the file is a position's rest. Imports
//! `memory` and `blocks`.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use zlib_rs::crc32::crc32;

use super::blocks;
use super::memory::Memory;

/// The first bytes of the file: also says which layout.
const MAGIC: u64 = u64::from_le_bytes(*b"rtring01");
/// What is in front of the records.
const HEAD: usize = 4096;
/// In front of each record: its length and its check.
const FRAME: u64 = 8;
/// In place of a length: the record is at the beginning of the file.
const TURN: u32 = u32::MAX;

/// The mapped file.
// The memory belongs to the ring until it is dropped. The fields in front are atomics. The bytes of records are written by
// one thread, before it publishes `head`, into room that the reader has freed by `tail`; and read by one thread, between the two.
#[derive(Debug)]
pub struct Ring {
    memory: Memory,
    /// Bytes for records.
    capacity: u64,
    /// Mixed into the checks, so that no record of another time is taken for one of this.
    id: AtomicU64,
    /// Where the first record is that is not in the database.
    tail: AtomicU64,
    /// Where the next one goes. The file says the same from [`Ring::settle`] on.
    head: AtomicU64,
}

/// A place among the numbers in front of the records.
#[derive(Clone, Copy, Debug)]
enum Field {
    Magic = 0,
    Capacity = 1,
    Id = 2,
    Boot = 3,
    Closed = 4,
    Synced = 5,
    Newest = 8,
    /// The same with all bits turned: both are right, or one of them was being written, or neither can be believed.
    NotNewest = 9,
    Head = 10,
}

/// What the last one that used it has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Which ring it was.
    pub id: u64,
    /// Of which run of the machine.
    pub boot: u64,
    /// Whether it was closed as it should be.
    pub closed: bool,
    /// Whether nothing was acknowledged before it was on the disk (`realtime.fsync = always`).
    pub synced: bool,
    /// The newest number that was given, if that can be believed.
    pub newest: Option<u64>,
    /// Where the last record ended.
    pub head: u64,
}

impl Ring {
    /// Opens the file and says what was left in it; none when there is no file, or it is no ring's.
    pub fn open(path: &Path) -> io::Result<Option<(Self, Left)>> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let length = file.metadata()?.len();
        if length < (HEAD + 4096) as u64 || !length.is_multiple_of(4096) {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let ring = Self::new(Memory::map(file, length)?);
        Ok(ring.left().map(|left| (ring, left)))
    }

    /// Makes the file, with room for two records of `largest` bytes at least. It is no ring's before [`Ring::begin`].
    pub fn create(path: &Path, largest: usize) -> io::Result<Self> {
        let wanted = (2 * (largest + FRAME as usize + 8))
            .max(8 << 20)
            .next_multiple_of(4096);
        remove(path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let made = blocks::reserve(&file, (HEAD + wanted) as u64)
            .and_then(|()| Memory::map(file, HEAD + wanted));
        if made.is_err() {
            // What there is of it would keep others from the room that is left.
            let _ = remove(path);
        }
        Ok(Self::new(made?))
    }

    /// One in this process's memory: nothing in it outlives that.
    pub fn alone(records: usize) -> Self {
        Self::new(Memory::alone(HEAD + records.next_multiple_of(4096)))
    }

    /// Whether a record of `largest` bytes fits at all.
    pub fn takes(&self, largest: usize) -> bool {
        2 * (largest as u64 + FRAME + 8) <= self.capacity
    }

    /// Begins as ring `id`, without a record. It is one's file from the last word on.
    pub fn begin(&self, id: u64, boot: u64, synced: bool) {
        self.id.store(id, Ordering::Release);
        self.set(Field::Capacity, self.capacity);
        self.set(Field::Id, id);
        self.settle(boot, synced);
        self.numbered(0);
        self.set(Field::Magic, MAGIC);
    }

    /// Stands in this process at these records of ring `id`. The file stays as it is.
    pub fn stand(&self, id: u64, tail: u64, head: u64) {
        self.id.store(id, Ordering::Release);
        self.tail.store(tail, Ordering::Release);
        self.head.store(head, Ordering::Release);
    }

    /// Notes in the file where it stands, and what [`Left`] is to tell: from here on it takes records.
    pub fn settle(&self, boot: u64, synced: bool) {
        // In this order: whenever this process ends, no more is believed of it than is true.
        self.set(Field::Synced, if synced { MAGIC } else { 0 });
        self.take_up(Some(boot));
        self.set(Field::Head, self.head());
    }

    /// Notes that this run of the machine has taken it up, when nothing is in doubt before.
    pub fn take_up(&self, boot: Option<u64>) {
        if let Some(boot) = boot {
            self.set(Field::Boot, boot);
        }
        self.set(Field::Closed, 0);
    }

    /// Notes that all is as it should be: nothing is to be repaired at the next start.
    pub fn close(&self) {
        self.set(Field::Closed, MAGIC);
    }

    /// Notes the newest number.
    pub fn numbered(&self, newest: u64) {
        self.set(Field::Newest, newest);
        self.set(Field::NotNewest, !newest);
    }

    /// Whether a record of `length` bytes fits now.
    pub fn has_room(&self, length: usize) -> bool {
        let needed = (length as u64 + FRAME + 8).next_multiple_of(8);
        // The worst case: it does not fit into the end of the file.
        let lost = needed.min(self.capacity - self.head() % self.capacity);
        self.used() + lost + needed <= self.capacity
    }

    /// Bytes that wait to be freed.
    pub fn used(&self) -> u64 {
        self.head() - self.tail()
    }

    /// Half of what fits.
    pub fn half(&self) -> u64 {
        self.capacity / 2
    }

    /// Which one it is.
    pub fn id(&self) -> u64 {
        self.id.load(Ordering::Acquire)
    }

    /// Where the next record goes.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Where the first record is.
    pub fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    /// Writes a record of at most `most` bytes, for which there is room, and returns the position behind it. `write` says how long
    /// it has become. By one thread at a time.
    pub fn append(&self, most: usize, write: impl FnOnce(&mut [u8]) -> usize) -> u64 {
        let mut position = self.head();
        let mut offset = position % self.capacity;
        if self.capacity - offset < most as u64 + FRAME {
            self.put_frame(offset, TURN, 0);
            position += self.capacity - offset;
            offset = 0;
        }
        let body = HEAD + (offset + FRAME) as usize;
        assert!(
            body + most <= HEAD + self.capacity as usize,
            "the caller has looked for room"
        );
        // SAFETY: within the mapping, and behind `head`, where the reader does not look; only this thread writes.
        let room = unsafe { std::slice::from_raw_parts_mut(self.place(body), most) };
        let length = write(room);
        let check = crc32(0, &room[..length]) ^ self.fold(position);
        self.put_frame(offset, length as u32, check);
        let head = (position + FRAME + length as u64).next_multiple_of(8);
        self.set(Field::Head, head);
        self.head.store(head, Ordering::Release);
        head
    }

    /// The records from `from` to `to`, or as far as there are any, each with the check of its bytes and the position behind it. By the
    /// reader alone.
    pub fn records(&self, from: u64, to: u64) -> impl Iterator<Item = (u32, &[u8], u64)> {
        let mut position = from;
        std::iter::from_fn(move || {
            if position >= to || to - from > self.capacity || !position.is_multiple_of(8) {
                return None;
            }
            let (mut length, mut check) = self.frame(position % self.capacity);
            if length == TURN {
                position += self.capacity - position % self.capacity;
                if position >= to {
                    return None;
                }
                (length, check) = self.frame(position % self.capacity);
            }
            let offset = position % self.capacity;
            if u64::from(length) > self.capacity - offset - FRAME {
                return None;
            }
            let body = HEAD + (offset + FRAME) as usize;
            // SAFETY: within the mapping, and before `head`: nobody writes there until the reader frees it.
            let body = unsafe { std::slice::from_raw_parts(self.place(body), length as usize) };
            let check = check ^ self.fold(position);
            if crc32(0, body) != check {
                return None;
            }
            position = (position + FRAME + u64::from(length)).next_multiple_of(8);
            Some((check, body, position))
        })
    }

    /// The records that are left from `from` on, as far as there are any.
    pub fn left_records(&self, from: u64) -> impl Iterator<Item = (u32, &[u8], u64)> {
        self.records(from, from.saturating_add(self.capacity))
    }

    /// A place for the next record at which nothing can be taken for one, when what is behind `end` is not whole.
    pub fn beyond(&self, end: u64) -> u64 {
        end.next_multiple_of(8).saturating_add(self.capacity)
    }

    /// Has the disk write it.
    pub fn sync(&self) -> io::Result<()> {
        self.memory.sync()
    }

    /// Everything before `position` is in the database.
    pub fn free(&self, position: u64) {
        self.tail.store(position, Ordering::Release);
    }

    /// What the file says, when that makes sense.
    fn left(&self) -> Option<Left> {
        let sound = self.get(Field::Magic) == MAGIC && self.get(Field::Capacity) == self.capacity;
        let newest = self.get(Field::Newest);
        sound.then(|| Left {
            id: self.get(Field::Id),
            boot: self.get(Field::Boot),
            closed: self.get(Field::Closed) == MAGIC,
            synced: self.get(Field::Synced) == MAGIC,
            newest: (newest == !self.get(Field::NotNewest)).then_some(newest),
            head: self.get(Field::Head),
        })
    }

    fn new(memory: Memory) -> Self {
        let ring = Self {
            capacity: (memory.len() - HEAD) as u64,
            memory,
            id: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            head: AtomicU64::new(0),
        };
        ring.id.store(ring.get(Field::Id), Ordering::Release);
        ring
    }

    /// The byte at this distance from the beginning.
    fn place(&self, distance: usize) -> *mut u8 {
        debug_assert!(distance <= self.memory.len());
        // SAFETY: within the memory, or its end: offsets of records are below the capacity, and fields are in front of them.
        unsafe { self.memory.start().as_ptr().add(distance) }
    }

    fn field(&self, field: Field) -> &AtomicU64 {
        // SAFETY: within the first page of the mapping, which is aligned; all access is atomic, for as long as `self` lives.
        unsafe { AtomicU64::from_ptr(self.place(field as usize * 8).cast()) }
    }

    fn get(&self, field: Field) -> u64 {
        self.field(field).load(Ordering::Acquire)
    }

    fn set(&self, field: Field, value: u64) {
        // What was written before is there for whoever sees this; also after the end of this process.
        self.field(field).store(value, Ordering::Release);
    }

    /// A record of another position, of an earlier turn or of another ring, is not taken for the one that should be there.
    fn fold(&self, position: u64) -> u32 {
        let mixed = position ^ self.id();
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
    }

    fn put_frame(&self, offset: u64, length: u32, check: u32) {
        let frame = u64::from(length) | u64::from(check) << 32;
        // SAFETY: offsets are multiples of 8 below the capacity, which is one, too; behind `head` as in `append`.
        unsafe {
            self.place(HEAD + offset as usize)
                .cast::<u64>()
                .write(frame)
        };
    }

    fn frame(&self, offset: u64) -> (u32, u32) {
        // SAFETY: as in `put_frame`; before `head` as in `records`.
        let frame = unsafe { self.place(HEAD + offset as usize).cast::<u64>().read() };
        (frame as u32, (frame >> 32) as u32)
    }
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Also run by miri (`tests/run.sh miri`), which sees every byte that is read before it was written, and every race.
#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const ID: u64 = 7;

    fn ring() -> Ring {
        let ring = Ring::alone(4096);
        ring.begin(ID, 1, false);
        ring
    }

    /// A record of this length that no other is like.
    fn body(number: u64, length: usize) -> Vec<u8> {
        let bytes = (0..length as u64).map(|at| (number * 31 + at * 7) as u8);
        bytes.collect()
    }

    fn put(ring: &Ring, body: &[u8]) -> u64 {
        ring.append(body.len() + 5, |room| {
            room[..body.len()].copy_from_slice(body);
            body.len()
        })
    }

    fn bodies(ring: &Ring, from: u64) -> Vec<Vec<u8>> {
        let records = ring.left_records(from);
        records.map(|(_, body, _)| body.to_vec()).collect()
    }

    #[test]
    fn what_was_put_in_comes_out_in_order_over_many_turns() {
        let ring = ring();
        let mut waiting = VecDeque::new();
        let (mut number, mut taken) = (0, 0);
        // Lengths that end everywhere in a row, the largest and none among them.
        for length in (0..2000).step_by(if cfg!(miri) { 200 } else { 1 }) {
            while !ring.has_room(length + 5) {
                let (check, body, behind) = ring.records(ring.tail(), ring.head()).next().unwrap();
                assert_eq!(check, crc32(0, body));
                assert_eq!(Some(body.to_vec()), waiting.pop_front());
                ring.free(behind);
                taken += 1;
            }
            waiting.push_back(body(number, length));
            put(&ring, waiting.back().unwrap());
            number += 1;
        }
        let rest: Vec<_> = ring.records(ring.tail(), ring.head()).collect();
        assert_eq!(rest.len(), waiting.len());
        assert_eq!(rest.len() + taken, number as usize);
        assert_eq!(rest.last().unwrap().2, ring.head());
        assert!(ring.head() > 2 * 4096, "several turns");
    }

    #[test]
    fn one_thread_writes_while_another_reads() {
        let ring = ring();
        let count = if cfg!(miri) { 12 } else { 20_000 };
        let length = |number: u64| (number * 37 % 500) as usize;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..count {
                    while !ring.has_room(length(number) + 5) {
                        std::thread::yield_now();
                    }
                    put(&ring, &body(number, length(number)));
                    ring.numbered(number);
                }
            });
            let mut number = 0;
            while number < count {
                let head = ring.head();
                for (_, read, _) in ring.records(ring.tail(), head) {
                    assert_eq!(read, body(number, length(number)));
                    number += 1;
                }
                ring.free(head);
                std::thread::yield_now();
            }
        });
        assert_eq!(ring.left().unwrap().newest, Some(count - 1));
    }

    #[test]
    fn a_damaged_record_ends_what_is_left_and_nothing_old_comes_after_the_new() {
        let ring = ring();
        let ends: Vec<_> = (0..5)
            .map(|number| put(&ring, &body(number, 100)))
            .collect();
        assert_eq!(bodies(&ring, 0).len(), 5);
        // One byte of the third.
        let place = HEAD + ends[1] as usize + FRAME as usize + 50;
        // SAFETY: a byte of a record; nobody else has the ring.
        unsafe { *ring.place(place) ^= 1 };
        assert_eq!(bodies(&ring, 0), [body(0, 100), body(1, 100)]);
        assert!(bodies(&ring, 4).is_empty(), "no record begins there");
        let head = ring.beyond(ends[1]);
        ring.stand(ID, head, head);
        assert_eq!(ring.left().unwrap().head, ends[4], "the file as it was");
        ring.settle(2, true);
        assert_eq!(put(&ring, &body(9, 100)), head + ends[0]);
        assert_eq!(bodies(&ring, head), [body(9, 100)]);
        let left = ring.left().unwrap();
        assert_eq!(
            (left.boot, left.closed, left.synced, left.head),
            (2, false, true, ring.head())
        );
    }

    #[test]
    fn another_rings_records_are_none() {
        let ring = ring();
        put(&ring, &body(1, 10));
        ring.stand(ID + 1, 0, ring.head());
        assert!(bodies(&ring, 0).is_empty());
        // Numbers in the database that cannot be positions.
        for from in [3, 1 << 40, u64::MAX - 7, u64::MAX] {
            assert!(bodies(&ring, from).is_empty(), "{from}");
        }
    }

    #[test]
    fn a_number_that_was_being_written_is_not_believed() {
        let ring = ring();
        ring.numbered(5);
        assert_eq!(ring.left().unwrap().newest, Some(5));
        ring.set(Field::Newest, 6);
        assert_eq!(ring.left().unwrap().newest, None);
    }
}
