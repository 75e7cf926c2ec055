//! `defmt` frames under construction, nested as interrupts nest.

use crate::Class;

/// How deep frames may nest on one CPU: a task, an interrupt, an NMI or #VC, a fault in that.
pub const MAX_DEPTH: usize = 4;

/// A finished frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame<'a> {
    /// Who may see it.
    pub class: Class,
    /// The frame; `None` if the stack had no room for all of it.
    pub bytes: Option<&'a [u8]>,
}

/// The frames that one CPU (or thread) is writing.
///
/// `defmt` hands a frame over in pieces, and an interrupt between two pieces may write a frame of its
/// own. Both end up whole: frames lie above each other in `S`, the lent storage. `T` is what a firmware
/// wants back when a frame is finished, such as the state of the interrupt flag.
///
/// One per CPU, in the CPU's own area. A value of this type is reached through [`Hook`](crate::Hook).
#[derive(Clone, Debug)]
pub struct FrameStack<S, T> {
    storage: S,
    used: usize,
    levels: [Level<T>; MAX_DEPTH],
    /// May exceed [`MAX_DEPTH`]: such frames are lost, but their ends must still pair up.
    depth: usize,
    class: Class,
    lost: u64,
}

#[derive(Clone, Copy, Debug)]
struct Level<T> {
    start: usize,
    class: Class,
    truncated: bool,
    saved: Option<T>,
}

impl<S, T: Copy> FrameStack<S, T> {
    /// No frames yet. 512 bytes of storage are plenty for messages that people write.
    pub const fn new(storage: S) -> Self {
        let level = Level {
            start: 0,
            class: Class::Local,
            truncated: false,
            saved: None,
        };
        Self {
            storage,
            used: 0,
            levels: [level; MAX_DEPTH],
            depth: 0,
            class: Class::Local,
            lost: 0,
        }
    }

    /// Sets the class of frames that begin from now on, and says what it was.
    pub const fn set_class(&mut self, class: Class) -> Class {
        core::mem::replace(&mut self.class, class)
    }

    /// How many frames were lost, because they nested too deep, since this was last asked.
    pub const fn take_lost(&mut self) -> u64 {
        core::mem::replace(&mut self.lost, 0)
    }

    /// Whether no frame is being written.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.depth == 0
    }
}

impl<S: AsRef<[u8]> + AsMut<[u8]>, T: Copy> FrameStack<S, T> {
    /// Begins a frame. A frame begun inside of another is finished before it.
    ///
    /// # Errors
    /// When frames nest too deep: `saved` comes back, the frame will be lost, and
    /// [`finish`](Self::finish) must be called for it all the same.
    pub fn begin(&mut self, saved: T) -> Result<(), T> {
        let depth = self.depth;
        self.depth = depth.saturating_add(1);
        // The class holds for one frame: one that an interrupt begins right behind it is local again.
        let class = core::mem::take(&mut self.class);
        let Some(level) = self.levels.get_mut(depth) else {
            self.lost = self.lost.saturating_add(1);
            return Err(saved);
        };
        *level = Level {
            start: self.used,
            class,
            truncated: false,
            saved: Some(saved),
        };
        Ok(())
    }

    /// Adds to the frame begun last.
    pub fn write(&mut self, bytes: &[u8]) {
        let Some(level) = self
            .depth
            .checked_sub(1)
            .and_then(|top| self.levels.get_mut(top))
        else {
            return;
        };
        let room = self
            .storage
            .as_mut()
            .get_mut(self.used..)
            .unwrap_or_default();
        match room.get_mut(..bytes.len()) {
            Some(room) if !level.truncated => {
                room.copy_from_slice(bytes);
                self.used = self.used.saturating_add(bytes.len());
            }
            _ => level.truncated = true,
        }
    }

    /// Finishes the frame begun last: hands it to `take` and gives back what its
    /// [`begin`](Self::begin) was given.
    pub fn finish(&mut self, take: impl FnOnce(Frame<'_>)) -> Option<T> {
        let top = self.depth.checked_sub(1)?;
        self.depth = top;
        let level = self.levels.get_mut(top)?;
        let bytes = self.storage.as_ref().get(level.start..self.used);
        take(Frame {
            class: level.class,
            bytes: bytes.filter(|_| !level.truncated),
        });
        self.used = level.start;
        level.saved.take()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    type Seen = Vec<(Class, Option<Vec<u8>>)>;

    fn finish(stack: &mut FrameStack<[u8; 16], u8>, seen: &mut Seen) -> Option<u8> {
        stack.finish(|frame| seen.push((frame.class, frame.bytes.map(<[u8]>::to_vec))))
    }

    #[test]
    fn nested_frames_come_out_whole_and_inner_first() {
        let (mut stack, mut seen) = (FrameStack::new([0; 16]), Vec::new());
        stack.set_class(Class::Public);
        stack.begin(1).unwrap();
        stack.write(b"out");
        stack.begin(2).unwrap();
        stack.write(b"inner");
        assert_eq!(finish(&mut stack, &mut seen), Some(2));
        stack.write(b"er");
        assert_eq!(finish(&mut stack, &mut seen), Some(1));
        assert!(stack.is_idle());
        let expected = [
            (Class::Local, Some(b"inner".to_vec())),
            (Class::Public, Some(b"outer".to_vec())),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn too_long_a_frame_is_reported_and_harms_no_other() {
        let (mut stack, mut seen) = (FrameStack::new([0; 16]), Vec::new());
        stack.begin(0).unwrap();
        stack.write(&[1; 10]);
        stack.begin(0).unwrap();
        stack.write(&[2; 7]);
        stack.write(&[2; 1]);
        finish(&mut stack, &mut seen);
        stack.write(&[1; 6]);
        finish(&mut stack, &mut seen);
        assert_eq!(
            seen,
            [
                (Class::Local, None),
                (Class::Local, Some(alloc::vec![1; 16]))
            ]
        );
    }

    #[test]
    fn too_deep_a_frame_is_lost_and_the_others_are_not() {
        let (mut stack, mut seen) = (FrameStack::new([0; 16]), Vec::new());
        for depth in 0..6_u8 {
            assert_eq!(stack.begin(depth).is_ok(), usize::from(depth) < MAX_DEPTH);
            stack.write(&[depth]);
        }
        for depth in (0..6_u8).rev() {
            let saved = finish(&mut stack, &mut seen);
            assert_eq!(saved, (usize::from(depth) < MAX_DEPTH).then_some(depth));
        }
        assert_eq!(stack.take_lost(), 2);
        let expected: Seen = (0..4_u8)
            .rev()
            .map(|depth| (Class::Local, Some(alloc::vec![depth])))
            .collect();
        assert_eq!(seen, expected);
        assert_eq!(finish(&mut stack, &mut Vec::new()), None);
    }
}
